// Package machineid gives a guest its own machine-id(5), and with it what nobody else may have: an image brings those of
// the machine on which it was made, and a fork those of the guest that it was.
package machineid

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ingle.dev/guest_agent/internal/hostkeys"
	"ingle.dev/guest_agent/internal/naming"
)

const (
	file = "etc/machine-id"
	// busFile is where D-Bus looks first; most systems have a link to the other one there.
	busFile = "var/lib/dbus/machine-id"

	mode = 0o444

	// beforeFirst is what the file says before a systemd's first boot.
	beforeFirst = "uninitialized"
)

var form = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Valid tells whether the text can be a machine-id.
func Valid(id string) bool { return form.MatchString(id) && strings.Trim(id, "0") != "" }

// Take makes it the guest's. Where another one was, the SSH host keys are another machine's as well, and are made anew;
// it answers whether they were. Doing it again is fine, and writes nothing.
//
// systemd, when it is about to boot, knows by the file whether this is the first time. So then it is left, and systemd
// takes the id from the kernel's command line.
func Take(id string, systemdBoots bool) (newKeys bool, err error) { return take("/", id, systemdBoots) }

func take(root, id string, systemdBoots bool) (newKeys bool, err error) {
	path := filepath.Join(root, file)
	content, err := naming.Read(path)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return false, err
	}
	before := strings.TrimSpace(string(content))
	if before != id {
		if newKeys, err = hostkeys.Renew(root); err != nil {
			return newKeys, err
		}
	}
	bus := filepath.Join(root, busFile)
	if info, err := os.Lstat(bus); err == nil && info.Mode().IsRegular() {
		if err := naming.WriteIfChanged(bus, []byte(id+"\n"), mode); err != nil {
			return newKeys, err
		}
	}
	if systemdBoots && (absent || before == beforeFirst) {
		return newKeys, nil
	}
	// Last: who is interrupted before it begins anew.
	return newKeys, naming.WriteIfChanged(path, []byte(id+"\n"), mode)
}
