package hostkeys

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root has files of these names in etc/ssh.
func root(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, directory), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(root, directory, name), []byte("the image's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func listed(t *testing.T, root string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, directory))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return strings.Join(names, " ")
}

func TestKeysAreWhatOpenSSHReads(t *testing.T) {
	for range 20 { // mpints have several lengths
		root := root(t, "ssh_host_ecdsa_key", "ssh_host_ecdsa_key.pub", "ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config")
		if renewed, err := Renew(root); err != nil || !renewed {
			t.Fatal(renewed, err)
		}
		if got := listed(t, root); got != "ssh_host_ecdsa_key ssh_host_ecdsa_key.pub ssh_host_ed25519_key ssh_host_ed25519_key.pub sshd_config" {
			t.Fatal(got)
		}
		for _, name := range []string{ed25519File, ecdsaFile} {
			path := filepath.Join(root, directory, name)
			derived, err := exec.Command("ssh-keygen", "-y", "-f", path).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", name, err, derived)
			}
			public, err := os.ReadFile(path + ".pub")
			if err != nil || strings.TrimSpace(string(derived)) != strings.TrimSpace(string(public)) {
				t.Errorf("%s: %q, of the private key %q, %v", name, public, derived, err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != privateMode {
				t.Errorf("%v, %v", info, err)
			}
		}
	}
}

func TestWhereNoKeysAreNoneAreMade(t *testing.T) {
	for _, root := range []string{root(t, "sshd_config"), t.TempDir()} {
		if renewed, err := Renew(root); err != nil || renewed {
			t.Errorf("%v, %v", renewed, err)
		}
	}
}

func TestNoTwoAreTheSame(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		root := root(t, ed25519File)
		if _, err := Renew(root); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(root, directory, ed25519File))
		if err != nil || seen[string(content)] {
			t.Fatal("again", err)
		}
		seen[string(content)] = true
	}
}
