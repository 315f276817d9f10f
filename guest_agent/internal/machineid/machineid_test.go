package machineid

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	mine   = "0123456789abcdef0123456789abcdef"
	theirs = "fedcba9876543210fedcba9876543210"
	key    = "etc/ssh/ssh_host_ed25519_key"
)

// image is a root file system with these files.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func read(root, path string) string {
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

func TestWhateverAnImageBringsIsReplaced(t *testing.T) {
	for name, before := range map[string]map[string]string{
		"none":               {},
		"empty":              {file: ""},
		"before a first one": {file: beforeFirst + "\n"},
		"another machine's":  {file: theirs + "\n", busFile: theirs + "\n"},
	} {
		root := image(t, before)
		if _, err := take(root, mine, false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := read(root, file); got != mine+"\n" {
			t.Errorf("%s: %q", name, got)
		}
		if _, had := before[busFile]; had && read(root, busFile) != mine+"\n" {
			t.Errorf("%s: D-Bus has %q", name, read(root, busFile))
		}
	}
}

func TestALinkOfDBusStays(t *testing.T) {
	root := image(t, map[string]string{"var/lib/dbus/x": ""})
	if err := os.Symlink("/etc/machine-id", filepath.Join(root, busFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := take(root, mine, false); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(root, busFile)); target != "/etc/machine-id" {
		t.Errorf("%q, %v", target, err)
	}
}

func TestASystemdThatBootsForTheFirstTimeIsLeftToKnowIt(t *testing.T) {
	for _, test := range []struct{ before, want string }{
		{beforeFirst + "\n", beforeFirst + "\n"}, {"", mine + "\n"}, {theirs, mine + "\n"},
	} {
		root := image(t, map[string]string{file: test.before})
		if _, err := take(root, mine, true); err != nil || read(root, file) != test.want {
			t.Errorf("%q: %q, %v", test.before, read(root, file), err)
		}
	}
	root := image(t, nil)
	if _, err := take(root, mine, true); err != nil || !strings.Contains(read(root, file), "no such file") {
		t.Errorf("%q, %v", read(root, file), err)
	}
}

func TestHostKeysAreMadeAnewWithAnotherMachineIdOnly(t *testing.T) {
	root := image(t, map[string]string{file: theirs + "\n", key: "the image's"})
	if renewed, err := take(root, mine, false); err != nil || !renewed {
		t.Fatalf("%v, %v", renewed, err)
	}
	first := read(root, key)
	if renewed, err := take(root, mine, false); err != nil || renewed || read(root, key) != first {
		t.Errorf("the same machine has other keys: %v, %v", renewed, err)
	}
	if renewed, err := take(root, theirs, false); err != nil || !renewed || read(root, key) == first {
		t.Errorf("another machine has the same keys: %v, %v", renewed, err)
	}
}

func TestWhatIsNoMachineId(t *testing.T) {
	for _, id := range []string{"", "0123", strings.Repeat("0", 32), strings.Repeat("A", 32), mine + "\n", mine + "0"} {
		if Valid(id) {
			t.Errorf("%q is taken for one", id)
		}
	}
	if !Valid(mine) {
		t.Error("none is one")
	}
}
