package naming

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHosts(t *testing.T) {
	for _, test := range []struct{ name, before, address, want string }{
		{
			"a new file has the loopback too", "", "10.0.2.15",
			"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.2.15 hearth # ingle\n",
		},
		{
			"others' lines stay", "127.0.0.1 localhost\n# mine\n192.0.2.1 box", "10.0.2.15",
			"127.0.0.1 localhost\n# mine\n192.0.2.1 box\n10.0.2.15 hearth # ingle\n",
		},
		{
			"our line changes", "127.0.0.1 localhost\n10.0.0.9 old # ingle\n", "10.0.2.15",
			"127.0.0.1 localhost\n10.0.2.15 hearth # ingle\n",
		},
		{
			"without a network it is the loopback", "127.0.0.1 localhost\n", "",
			"127.0.0.1 localhost\n127.0.1.1 hearth # ingle\n",
		},
	} {
		if got := string(hosts([]byte(test.before), "hearth", test.address)); got != test.want {
			t.Errorf("%s:\n%s", test.name, got)
		}
	}
}

func TestAFileReplacesADanglingLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.Symlink("/run/systemd/resolve/stub-resolv.conf", path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := WriteIfChanged(path, []byte("nameserver 10.0.2.3\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		t.Fatalf("%v, %v", info, err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "nameserver 10.0.2.3\n" {
		t.Errorf("%q, %v", content, err)
	}
}

func TestAnUnchangedFileIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hostname")
	inode := func() os.FileInfo {
		if err := WriteIfChanged(path, []byte("hearth\n"), mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if !os.SameFile(inode(), inode()) {
		t.Error("it is another file now")
	}
}

func TestOurLineIsFoundAmongOthers(t *testing.T) {
	for _, test := range []struct{ content, address, name string }{
		{"127.0.0.1 localhost\n10.0.2.15 hearth # ingle\n", "10.0.2.15", "hearth"},
		{"127.0.0.1 localhost\n10.0.2.15 hearth\n", "", ""},
		{"# ingle\n", "", ""},
		{"", "", ""},
	} {
		if address, name := ourLine([]byte(test.content)); address != test.address || name != test.name {
			t.Errorf("%q: %q %q", test.content, address, name)
		}
	}
}

func TestNothingInTheGuestsWayIsWaitedForOrTakenIn(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "hostname")
	for _, each := range []string{path, path + ".ingle"} {
		if err := unix.Mkfifo(each, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(path); err == nil {
		t.Error("a FIFO was read")
	}
	if err := WriteIfChanged(path, []byte("hearth\n"), mode); err != nil {
		t.Fatal(err)
	}
	if content, err := Read(path); err != nil || string(content) != "hearth\n" {
		t.Errorf("%q, %v", content, err)
	}
	if err := os.Truncate(path, 7<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("7 GiB were read")
	}
}
