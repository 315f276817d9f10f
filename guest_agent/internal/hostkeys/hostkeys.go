// Package hostkeys gives a guest SSH host keys of its own in the place of those that it shares with others.
package hostkeys

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/naming"
)

const (
	directory   = "etc/ssh"
	ed25519File = "ssh_host_ed25519_key"
	ecdsaFile   = "ssh_host_ecdsa_key"

	privateMode = 0o600
	publicMode  = 0o644
)

// Renew makes new keys where a root file system has any, and answers whether it has. There is always one of Ed25519
// afterwards, and one of ECDSA where one was; those of other types are removed: to make one of RSA takes seconds, and who
// wants it has ssh-keygen -A.
func Renew(root string) (renewed bool, err error) {
	present, err := filepath.Glob(filepath.Join(root, directory, "ssh_host_*_key*"))
	if err != nil || len(present) == 0 {
		return false, err
	}
	makers := map[string]func() (key, error){ed25519File: newEd25519}
	for _, path := range present {
		if filepath.Base(path) == ecdsaFile {
			makers[ecdsaFile] = newECDSA
		}
	}
	kept := map[string]bool{}
	for name, make := range makers {
		made, err := make()
		if err != nil {
			return false, err
		}
		path := filepath.Join(root, directory, name)
		if err := naming.WriteIfChanged(path, made.private(), privateMode); err != nil {
			return false, err
		}
		if err := naming.WriteIfChanged(path+".pub", made.public(), publicMode); err != nil {
			return false, err
		}
		kept[path], kept[path+".pub"] = true, true
	}
	for _, path := range present {
		if !kept[path] {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
		}
	}
	return true, nil
}

// Reload has a running sshd take the keys that there are now: it begins anew, its connections stay.
func Reload() {
	text, err := naming.Read("/run/sshd.pid")
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err == nil && strings.TrimSpace(string(name)) == "sshd" {
		_ = unix.Kill(pid, unix.SIGHUP)
	}
}

// key is one in the format of OpenSSH; see its PROTOCOL.key. Both parts are without the type.
type key struct {
	kind          string
	visible, full []byte
}

func newEd25519() (key, error) {
	visible, full, err := ed25519.GenerateKey(rand.Reader)
	return key{"ssh-ed25519", text(nil, visible), text(text(nil, visible), full)}, err
}

func newECDSA() (key, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return key{}, err
	}
	const curve = "nistp256"
	point := text(text(nil, []byte(curve)), private.PublicKey().Bytes())
	return key{"ecdsa-sha2-" + curve, point, integer(point[:len(point):len(point)], private.Bytes())}, nil
}

// blob is the public key as it is sent.
func (k key) blob() []byte { return append(text(nil, []byte(k.kind)), k.visible...) }

func (k key) public() []byte {
	return []byte(k.kind + " " + base64.StdEncoding.EncodeToString(k.blob()) + "\n")
}

func (k key) private() []byte {
	const blockSize = 8
	check := make([]byte, 4)
	_, _ = rand.Read(check) // it never fails
	secret := append(append([]byte{}, check...), check...)
	secret = append(text(secret, []byte(k.kind)), k.full...)
	secret = text(secret, nil) // the comment
	for padding := byte(1); len(secret)%blockSize != 0; padding++ {
		secret = append(secret, padding)
	}
	content := []byte("openssh-key-v1\x00")
	for _, field := range []string{"none", "none", ""} { // cipher, key derivation and its options
		content = text(content, []byte(field))
	}
	content = binary.BigEndian.AppendUint32(content, 1)
	content = text(text(content, k.blob()), secret)
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: content})
}

// text appends a string of RFC 4251, section 5.
func text(to, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(value))), value...)
}

// integer appends a positive mpint of the same.
func integer(to, value []byte) []byte {
	for len(value) > 0 && value[0] == 0 {
		value = value[1:]
	}
	if len(value) > 0 && value[0]&0x80 != 0 {
		value = append([]byte{0}, value...)
	}
	return text(to, value)
}
