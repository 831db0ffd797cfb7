package suit

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
)

// crypto/x509 reads the private keys that we write, and we read those that it writes.
func TestPKCS8AsCryptoX509HasIt(t *testing.T) {
	for name, key := range signers(t) {
		t.Run(name, func(t *testing.T) {
			ours, err := marshalPKCS8(key)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			read, err := x509.ParsePKCS8PrivateKey(ours)
			if err != nil || !read.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key) {
				t.Errorf("crypto/x509 reads %v, %v", read, err)
			}
			for _, der := range [][]byte{ours, theirs} {
				read, err := parsePKCS8(der)
				if err != nil || !sameKey(read.Public(), key.Public()) {
					t.Errorf("read %v, %v", read, err)
				}
				if _, err := parsePKCS8(append(bytes.Clone(der), 0)); err == nil {
					t.Error("a byte after the key is taken")
				}
				for n := range der {
					if _, err := parsePKCS8(der[:n]); err == nil {
						t.Errorf("the first %d of %d bytes are taken", n, len(der))
					}
				}
			}
		})
	}
}

func TestPKCS8OfOtherTypes(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsePKCS8(der); !errors.Is(err, errKeyType) {
		t.Error(err)
	}
	if _, err := marshalPKCS8(key); !errors.Is(err, errKeyType) {
		t.Error(err)
	}
}

// FuzzSigner: a private key that is read signs, and is the one that crypto/x509 reads.
func FuzzSigner(f *testing.F) {
	for _, key := range signers(f) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := ReadSigner(bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: der})))
		if err != nil {
			return
		}
		theirs, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatalf("crypto/x509 does not take it: %v", err)
		}
		if !theirs.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key) {
			t.Fatal("crypto/x509 reads another key")
		}
		alg, err := algorithmFor(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		sig, err := alg.sign(key, []byte("message"))
		if err != nil || !alg.verify(key.Public(), []byte("message"), sig) {
			t.Fatal(err)
		}
	})
}
