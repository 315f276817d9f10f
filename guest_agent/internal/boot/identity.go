package boot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

// hostsMark ends the one line of /etc/hosts that is ours to change.
const hostsMark = "# ingle"

// takeName makes the host name known to the kernel, and to programs that look for it in /etc.
func takeName(name, address string) error {
	if name == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	if err := writeIfChanged("/etc/hostname", []byte(name+"\n")); err != nil {
		return err
	}
	before, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeIfChanged("/etc/hosts", hosts(before, name, address))
}

// hosts is /etc/hosts with our line changed or added; a new file also gets the loopback.
func hosts(before []byte, name, address string) []byte {
	if address == "" {
		address = "127.0.1.1"
	}
	if len(before) == 0 {
		before = []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	}
	var after strings.Builder
	for line := range strings.Lines(string(before)) {
		if !strings.HasSuffix(strings.TrimSpace(line), hostsMark) {
			after.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	after.WriteString(address + " " + name + " " + hostsMark + "\n")
	return []byte(after.String())
}

// useNameservers writes /etc/resolv.conf.
func useNameservers(network *agentpb.Network) error {
	if len(network.GetNameservers()) == 0 {
		return nil
	}
	var text strings.Builder
	for _, server := range network.Nameservers {
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
	temporary := path + ".ingle"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
