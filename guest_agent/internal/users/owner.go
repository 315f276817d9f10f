package users

import (
	"fmt"
	"strconv"
	"strings"
)

// Owner looks up "USER", "USER:GROUP" or ":GROUP", as chown(1) takes them; -1 is what is not to be changed. A user
// without a group is just that: the group stays.
func (d Database) Owner(owner string) (uid, gid int, err error) {
	user, group, _ := strings.Cut(owner, ":")
	uid, gid = -1, -1
	if user != "" {
		account, err := d.Lookup(user)
		if err != nil {
			return 0, 0, err
		}
		uid = int(account.UID)
	}
	if group != "" {
		if gid, err = d.group(group); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// GroupNotFoundError names a group that /etc/group doesn't know.
type GroupNotFoundError struct{ Name string }

func (e GroupNotFoundError) Error() string {
	return fmt.Sprintf("no group %q in the guest's /etc/group", e.Name)
}

// group finds a group by name or number. A number needs no entry.
func (d Database) group(name string) (int, error) {
	found := -1
	err := eachLine(d.Group, 4, func(fields [][]byte) (more bool) {
		gid, gidErr := strconv.ParseUint(string(fields[2]), 10, 32)
		if string(fields[0]) == name && gidErr == nil {
			found = int(gid)
		}
		return found < 0
	})
	if err != nil || found >= 0 {
		return found, err
	}
	number, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, GroupNotFoundError{name}
	}
	return int(number), nil
}
