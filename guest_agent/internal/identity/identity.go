// Package identity is what a guest calls itself and where it looks up others: the host name, and the files of /etc
// that tell of it.
package identity

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hostsMark ends the one line of /etc/hosts that is ours to change.
const hostsMark = "# ingle"

// noNetwork stands for a host without any, as Debian has it.
const noNetwork = "127.0.1.1"

// TakeName makes the host name known to the kernel, and to programs that look for it in /etc. An empty address is the
// loopback.
func TakeName(name, address string) error {
	if name == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	if err := writeIfChanged("/etc/hostname", []byte(name+"\n")); err != nil {
		return err
	}
	before, err := readHosts()
	if err != nil {
		return err
	}
	return writeIfChanged("/etc/hosts", hosts(before, name, address))
}

// Change does the same for either of the two; what is empty stays as it is.
func Change(name, address string) error {
	before, err := readHosts()
	if err != nil {
		return err
	}
	formerAddress, formerName := ourLine(before)
	if name == "" {
		name = formerName
	}
	if address == "" {
		address = formerAddress
	}
	return TakeName(name, address)
}

func readHosts() ([]byte, error) {
	content, err := os.ReadFile("/etc/hosts")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// ourLine finds what our line of /etc/hosts says; without one it is nothing.
func ourLine(content []byte) (address, name string) {
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); isOurs(line) && len(fields) > 2 {
			return fields[0], fields[1]
		}
	}
	return "", ""
}

func isOurs(line string) bool { return strings.HasSuffix(strings.TrimSpace(line), hostsMark) }

// hosts is /etc/hosts with our line changed or added; a new file also gets the loopback.
func hosts(before []byte, name, address string) []byte {
	if address == "" {
		address = noNetwork
	}
	if len(before) == 0 {
		before = []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	}
	var after strings.Builder
	for line := range strings.Lines(string(before)) {
		if !isOurs(line) {
			after.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	after.WriteString(address + " " + name + " " + hostsMark + "\n")
	return []byte(after.String())
}

// UseNameservers writes /etc/resolv.conf; without any it stays as it is.
func UseNameservers(servers []string) error {
	if len(servers) == 0 {
		return nil
	}
	var text strings.Builder
	for _, server := range servers {
		text.WriteString("nameserver " + server + "\n")
	}
	return writeIfChanged("/etc/resolv.conf", []byte(text.String()))
}

// writeIfChanged gives a file of /etc its content: whole or not at all, and as a file of its own where an image has a
// symbolic link to what only its init would make. An unchanged file costs no write to the disk.
func writeIfChanged(path string, content []byte) error {
	before, err := os.ReadFile(path)
	if err == nil && bytes.Equal(before, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".ingle"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
