// Package naming is what a guest calls itself and where it looks up others: the host name, and the files of /etc
// that tell of it.
package naming

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hostsMark ends the one line of /etc/hosts that is ours to change.
const hostsMark = "# ingle"

// mode is that of these files.
const mode = 0o644

// mostBytes is what one of them may hold.
const mostBytes = 1 << 20

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
	if err := WriteIfChanged("/etc/hostname", []byte(name+"\n"), mode); err != nil {
		return err
	}
	before, err := readHosts()
	if err != nil {
		return err
	}
	return WriteIfChanged("/etc/hosts", hosts(before, name, address), mode)
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
	content, err := Read("/etc/hosts")
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
	return WriteIfChanged("/etc/resolv.conf", []byte(text.String()), mode)
}

// Read is the content of a small file of /etc, where a guest may have put anything: what is none, or is large, is an
// error, and nothing is waited for.
func Read(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > mostBytes {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, mostBytes)
	}
	return io.ReadAll(io.LimitReader(file, mostBytes))
}

// WriteIfChanged gives a file of /etc its content: whole or not at all, and as a file of its own where an image has a
// symbolic link to what only its init would make. An unchanged file costs no write to the disk.
func WriteIfChanged(path string, content []byte, mode fs.FileMode) error {
	before, err := Read(path)
	if err == nil && bytes.Equal(before, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".ingle"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
