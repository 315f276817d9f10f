// Package users looks up accounts in /etc/passwd and /etc/group, as libc without NSS does.
package users

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
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
	if user == "" {
		user = "root"
	}
	number, numberErr := strconv.ParseUint(user, 10, 32)
	var found *Account
	err := eachLine(d.Passwd, 7, func(fields []string) {
		uid, uidErr := strconv.ParseUint(fields[2], 10, 32)
		gid, gidErr := strconv.ParseUint(fields[3], 10, 32)
		matches := fields[0] == user || numberErr == nil && uid == number
		if found != nil || !matches || uidErr != nil || gidErr != nil {
			return
		}
		found = &Account{Name: fields[0], UID: uint32(uid), GID: uint32(gid), Home: fields[5], Shell: fields[6]}
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
	found.Groups, err = d.groupsOf(*found)
	return *found, err
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
	_ = eachLine(d.Passwd, 7, func(fields []string) {
		if name == "" && fields[2] == number {
			name = strings.ToValidUTF8(fields[0], "\uFFFD")
		}
	})
	return name
}

// groupsOf lists the primary group and those that name the user as a member.
func (d Database) groupsOf(account Account) ([]uint32, error) {
	groups := []uint32{account.GID}
	err := eachLine(d.Group, 4, func(fields []string) {
		gid, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || !slices.Contains(strings.Split(fields[3], ","), account.Name) {
			return
		}
		if !slices.Contains(groups, uint32(gid)) {
			groups = append(groups, uint32(gid))
		}
	})
	return groups, err
}

// eachLine calls take with the fields of each line that has exactly so many of them.
func eachLine(path string, fields int, take func([]string)) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if split := strings.Split(lines.Text(), ":"); len(split) == fields {
			take(split)
		}
	}
	return lines.Err()
}
