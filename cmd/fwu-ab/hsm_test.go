package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needTools skips a test for which tools are missing, unless all tests are demanded.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, err)
		}
	}
}

// missing skips a test for which something is missing, unless all tests are demanded.
func missing(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("FWUAB_TEST_ALL") == "" {
		t.Skip(why...)
	}
	t.Fatal(why...)
}

// bench is a directory in which the commands of the documentation are run.
type bench struct {
	*testing.T
	dir string
	env []string
}

func (b *bench) sh(script string) string {
	b.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), b.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s\n%v: %s%s", script, err, out, &stderr)
	}
	return string(out)
}

// newBench makes a manifest that is not signed yet. The program is in PATH: TestMain puts it there.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir()}
	b.sh(`echo an image > rootfs.img
fwu-ab manifest create --component rootfs --image rootfs.img --version 1.2.3 --sequence 7 --vendor-name example.com --class-name "board rev 2" -o rootfs.suit`)
	return b
}

func (b *bench) verified() {
	b.Helper()
	if out := b.sh("fwu-ab manifest verify rootfs.suit --key release.pub --image rootfs.img"); !strings.Contains(out, "signature is valid") {
		b.Error(out)
	}
}

// TestOpenSSLSigns: the private key is where only the openssl tool sees it.
func TestOpenSSLSigns(t *testing.T) {
	needTools(t, "openssl")
	for name, s := range map[string]struct{ key, sign string }{
		"ed25519": {"-algorithm ed25519", "openssl pkeyutl -sign -rawin -inkey release.key -in tbs -out sig"},
		"p256":    {"-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "openssl dgst -sha256 -sign release.key -out sig tbs"},
		"p384":    {"-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "openssl dgst -sha384 -sign release.key -out sig tbs"},
		"p521":    {"-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "openssl dgst -sha512 -sign release.key -out sig tbs"},
		"p256, what is hashed": {"-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
			"fwu-ab manifest digest rootfs.suit --key release.pub --hashed | openssl pkeyutl -sign -inkey release.key -out sig"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.sh("openssl genpkey " + s.key + " -out release.key && openssl pkey -in release.key -pubout -out release.pub")
			b.sh("fwu-ab manifest digest rootfs.suit --key release.pub -o tbs")
			b.sh(s.sign)
			b.sh("cp rootfs.suit before; echo changed >> tbs; openssl dgst -sha256 -sign release.key -out wrong tbs 2>/dev/null || head -c 64 /dev/zero > wrong")
			b.sh("set +e; fwu-ab manifest attach rootfs.suit --key release.pub --signature wrong 2> said; test $? -eq 5 && grep -q 'not valid' said && cmp rootfs.suit before")
			b.sh("fwu-ab manifest attach rootfs.suit --key release.pub --signature sig")
			b.verified()
		})
	}
}

// softHSM is a token that is software.
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// newToken makes the token "release". SOFTHSM2_CONF says where.
func (b *bench) newToken() {
	b.Helper()
	b.sh("mkdir tokens && echo directories.tokendir = $PWD/tokens > softhsm2.conf && softhsm2-util --init-token --free --label release --pin 1234 --so-pin 5678")
}

// TestHardwareSigns: the private keys are in a token, that of SoftHSM here. One signs after the other. They come from elsewhere, as pkcs11-tool of OpenSC 0.23 writes public keys on P-256 only.
func TestHardwareSigns(t *testing.T) {
	needTools(t, "softhsm2-util", "pkcs11-tool", "openssl")
	b := newBench(t)
	b.env = append(b.env, "SOFTHSM2_CONF="+filepath.Join(b.dir, "softhsm2.conf"))
	b.newToken()
	token := "pkcs11-tool --module " + softHSM + " --token-label release --login --pin 1234 "
	for id, curve := range map[string]string{"01": "prime256v1", "02": "secp384r1", "03": "secp521r1"} {
		b.sh("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:" + curve + " -outform DER -out key.der && openssl pkey -inform DER -in key.der -pubout -out release.pub")
		b.sh(token + "--write-object key.der --type privkey --label " + curve + " --id " + id + " && rm key.der")
		b.sh("fwu-ab manifest digest rootfs.suit --key release.pub --hashed -o hash")
		b.sh(token + "--sign --mechanism ECDSA --id " + id + " -i hash -o sig")
		b.sh("fwu-ab manifest attach rootfs.suit --key release.pub --signature sig")
		b.verified()
	}
}

// newAuthority makes a certificate authority and a certificate for release.key as the documentation says.
func (b *bench) newAuthority() {
	b.Helper()
	b.sh(`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out ca.key
openssl req -x509 -new -key ca.key -subj "/O=Example/CN=Example firmware" -days 7300 -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign -out ca.pem
fwu-ab key generate release
openssl req -new -key release.key -subj "/O=Example/CN=Release 7" -out release.csr
printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature extendedKeyUsage=codeSigning > release.ext
openssl x509 -req -in release.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile release.ext -out release.pem`)
}

// TestOpenSSLCertifies: the device knows an authority only, and the manifest says who signed.
func TestOpenSSLCertifies(t *testing.T) {
	needTools(t, "openssl")
	b := newBench(t)
	b.newAuthority()
	b.sh("cp rootfs.suit unsigned.suit; fwu-ab manifest sign --key release.key --chain release.pem rootfs.suit")
	if out := b.sh("fwu-ab manifest verify rootfs.suit --key ca.pem --image rootfs.img"); !strings.Contains(out, "signature is valid, image is") {
		t.Error(out)
	}
	if out := b.sh("fwu-ab manifest show rootfs.suit; fwu-ab manifest show --json rootfs.suit"); !strings.Contains(out, ", key of CN=Release 7,O=Example (not verified)") ||
		!strings.Contains(out, `"signer": "CN=Release 7,O=Example"`) {
		t.Error(out)
	}
	b.sh("fwu-ab manifest verify rootfs.suit --key release.pub --at 2100-01-01T00:00:00Z") // the key itself does not end
	for name, c := range map[string]struct{ command, code, text string }{
		"it has ended":                  {"manifest verify rootfs.suit --key ca.pem --at 2100-01-01T00:00:00Z", "5", "certificate expired on 20"},
		"it has not begun":              {"manifest verify rootfs.suit --key ca.pem --at 1970-01-01T00:00:00Z", "5", "certificate not yet valid, but from 20"},
		"no time":                       {"manifest verify rootfs.suit --key ca.pem --at yesterday", "1", `time "yesterday": want one such as`},
		"a signer as trust anchor":      {"manifest verify rootfs.suit --key release.pem", "1", "trust anchor release.pem: certificate is not that of a certificate authority: CN=Release 7,O=Example"},
		"not signed by the authority":   {"manifest verify unsigned.suit --key ca.pem", "5", "the manifest is not signed"},
		"certificate of another key":    {"manifest sign --key ca.key --chain release.pem unsigned.suit -o no.suit", "1", "first certificate is for another key: CN=Release 7,O=Example"},
		"certificate of the authority":  {"manifest sign --key ca.key --chain ca.pem unsigned.suit -o no.suit", "1", "certificate is that of a certificate authority, not of a signer"},
		"a key instead of certificates": {"manifest sign --key release.key --chain release.pub unsigned.suit -o no.suit", "1", "certificates release.pub: PEM block"},
		"digest for a certificate":      {"manifest digest unsigned.suit --key ca.pem -o no.suit", "1", "public key ca.pem: a certificate, want the key of the signer"},
		"certificates without a key": {"manifest create --component rootfs --image rootfs.img --version 1 --sequence 7 --vendor-name example.com --class-name x --chain release.pem -o no.suit", "1",
			"--chain is for a signature, which takes --key"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{T: t, dir: b.dir}
			if out := b.sh("set +e; fwu-ab " + c.command + " 2>&1; echo code $?; test ! -e no.suit"); !strings.Contains(out, c.text) || !strings.Contains(out, "code "+c.code+"\n") {
				t.Error(out)
			}
		})
	}
	// The same where the private key is elsewhere, and in one go with create: these keys always give the same bytes.
	b.sh(`cp rootfs.suit signed.suit
fwu-ab manifest digest unsigned.suit --key release.pub --chain release.pem -o tbs
openssl pkeyutl -sign -rawin -inkey release.key -in tbs -out sig
fwu-ab manifest attach unsigned.suit --key release.pub --chain release.pem --signature sig -o attached.suit
cmp attached.suit signed.suit
fwu-ab manifest create --component rootfs --image rootfs.img --version 1.2.3 --sequence 7 --vendor-name example.com --class-name "board rev 2" --key release.key --chain release.pem -o created.suit
cmp created.suit signed.suit
set +e; fwu-ab manifest attach unsigned.suit --key release.pub --signature sig -o no.suit 2> said; test $? -eq 5 && grep -q 'not valid' said && test ! -e no.suit`)
}
