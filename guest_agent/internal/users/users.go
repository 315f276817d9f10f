// Package users looks up accounts in /etc/passwd and /etc/group, as libc without NSS does.
package users

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// NotFoundError names a user that /etc/passwd doesn't know.
type NotFoundError struct{ Name string }

func (e NotFoundError) Error() string {
	return fmt.Sprintf("no user %q in the guest's /etc/passwd", e.Name)
}

// Account is a user and all their groups.
type Account struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32
	Home   string
	Shell  string
}

const fallbackShell = "/bin/sh"

// Database is a pair of files in the formats of passwd(5) and group(5). Absent files are empty ones: an image needs
// neither to run programs as root.
type Database struct{ Passwd, Group string }

// System is the guest's own.
var System = Database{"/etc/passwd", "/etc/group"}

// Lookup finds a user by name or number; an empty name is root. A number needs no entry, and neither does root.
func (d Database) Lookup(user string) (Account, error) {
	found, err := d.find(user)
	if err == nil {
		found.Groups, err = d.groupsOf(found)
	}
	return found, err
}

// LookupForFiles is Lookup, but without the groups of an account whose rights to files are ours already.
func (d Database) LookupForFiles(user string) (Account, error) {
	found, err := d.find(user)
	if err == nil && !found.isOurs() {
		found.Groups, err = d.groupsOf(found)
	}
	return found, err
}

func (d Database) find(user string) (Account, error) {
	if user == "" {
		user = "root"
	}
	number, numberErr := strconv.ParseUint(user, 10, 32)
	var found *Account
	err := eachLine(d.Passwd, 7, func(fields [][]byte) (more bool) {
		uid, uidErr := strconv.ParseUint(string(fields[2]), 10, 32)
		gid, gidErr := strconv.ParseUint(string(fields[3]), 10, 32)
		matches := string(fields[0]) == user || numberErr == nil && uid == number
		if !matches || uidErr != nil || gidErr != nil {
			return true
		}
		found = &Account{
			Name: string(fields[0]), UID: uint32(uid), GID: uint32(gid), Home: string(fields[5]), Shell: string(fields[6]),
		}
		return false
	})
	switch {
	case err != nil:
		return Account{}, err
	case found != nil:
	case user == "root" || numberErr == nil && number == 0:
		found = &Account{Name: "root", Home: "/root"}
	case numberErr == nil:
		found = &Account{Name: user, UID: uint32(number), Home: "/"}
	default:
		return Account{}, NotFoundError{user}
	}
	if found.Shell == "" {
		found.Shell = fallbackShell
	}
	return *found, nil
}

// LookupAs finds whom a command runs as: "USER", or "USER:GROUP" for a user with that group and no other, as
// docker run --user has it.
func (d Database) LookupAs(user string) (Account, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	account, err := d.Lookup(name)
	if err != nil || !hasGroup {
		return account, err
	}
	gid, err := d.group(group)
	if err != nil {
		return Account{}, err
	}
	account.GID, account.Groups = uint32(gid), []uint32{uint32(gid)}
	return account, nil
}

// NameOf is what a number is called; empty when nothing is known.
func (d Database) NameOf(uid uint32) string {
	name, number := "", strconv.FormatUint(uint64(uid), 10)
	// What can't be read has no names for us.
	_ = eachLine(d.Passwd, 7, func(fields [][]byte) (more bool) {
		if string(fields[2]) == number {
			name = strings.ToValidUTF8(string(fields[0]), "\uFFFD")
		}
		return name == ""
	})
	return name
}

// groupsOf lists the primary group and those that name the user as a member.
func (d Database) groupsOf(account Account) ([]uint32, error) {
	groups := []uint32{account.GID}
	err := eachLine(d.Group, 4, func(fields [][]byte) (more bool) {
		gid, err := strconv.ParseUint(string(fields[2]), 10, 32)
		if err == nil && isMember(fields[3], account.Name) && !slices.Contains(groups, uint32(gid)) {
			groups = append(groups, uint32(gid))
		}
		return true
	})
	return groups, err
}

// isMember finds a name among those of a line.
func isMember(members []byte, name string) bool {
	for more := true; more; {
		var member []byte
		if member, members, more = bytes.Cut(members, []byte(",")); string(member) == name {
			return true
		}
	}
	return false
}

// lineBuffers are what lines are read into: every command and every file that is asked for looks somebody up.
var lineBuffers = sync.Pool{New: func() any { return new([4096]byte) }}

// eachLine calls take with the fields of each line that has exactly so many of them, as long as it wants more. The fields
// are gone when it returns.
func eachLine(path string, count int, take func(fields [][]byte) (more bool)) error {
	// os.Open would offer the file to the runtime's poller, which takes five system calls and no file.
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(file)
	buffer := lineBuffers.Get().(*[4096]byte)
	defer lineBuffers.Put(buffer)
	lines := bufio.NewScanner(descriptor(file))
	lines.Buffer(buffer[:], bufio.MaxScanTokenSize)
	var split [mostFields][]byte
	for lines.Scan() {
		if fields := splitFields(lines.Bytes(), split[:0]); len(fields) == count && !take(fields) {
			break
		}
	}
	return lines.Err()
}

// descriptor is a file to be read.
type descriptor int

func (d descriptor) Read(buffer []byte) (int, error) {
	for {
		size, err := unix.Read(int(d), buffer)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case size == 0:
			return 0, io.EOF
		default:
			return size, nil
		}
	}
}

// mostFields is one more than any line has that counts.
const mostFields = 8

// splitFields appends the fields of a line to others, or as many of them as there is room for.
func splitFields(line []byte, fields [][]byte) [][]byte {
	for more := true; more && len(fields) < cap(fields); {
		var field []byte
		field, line, more = bytes.Cut(line, []byte(":"))
		fields = append(fields, field)
	}
	return fields
}
