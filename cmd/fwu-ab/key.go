package main

import (
	"fmt"
	"os"

	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/spf13/cobra"
)

func newKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make keys that sign manifests",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyGenerateCommand())
	return cmd
}

func newKeyGenerateCommand() *cobra.Command {
	var keyType string
	cmd := &cobra.Command{
		Use:   "generate NAME",
		Short: "Make a key pair",
		Long: `Make a key pair: the private key in NAME.key (PKCS #8, readable by its owner only), the public key in NAME.pub.
The public key is what a device is given as trust anchor. Files that exist are never overwritten.
The key identifier, which manifests carry, is printed: the first 8 bytes of the SHA-256 digest of the public key in DER.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kid, err := generateKey(suit.KeyType(keyType), args[0]+".key", args[0]+".pub")
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%x\n", kid)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&keyType, "type", string(suit.Ed25519), "type of the key: ed25519, p256, p384 or p521")
	return cmd
}

func generateKey(t suit.KeyType, private, public string) (kid []byte, err error) {
	key, err := suit.GenerateKey(t)
	if err != nil {
		return nil, err
	}
	if kid, err = suit.KeyID(key.Public()); err != nil {
		return nil, err
	}
	secret, err := suit.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	open, err := suit.MarshalPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	if err := writeNewFile(private, secret, 0o600); err != nil {
		return nil, err
	}
	if err := writeNewFile(public, open, 0o644); err != nil {
		_ = os.Remove(private) // a key without its other half would only be in the way of the next attempt
		return nil, err
	}
	return kid, nil
}

// writeNewFile writes a file that must not exist. It leaves nothing behind when it fails.
func writeNewFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
