package files

import (
	"crypto/rand"
	"encoding/hex"

	"golang.org/x/sys/unix"
)

// putInPlace has something made under a temporary name beside its own, and then gives it its own, in the place of what
// was there. Who looks meanwhile, and who looks after a failure, finds what was there, and nothing else.
func putInPlace(directory int, name string, create func(temporary string) error) error {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	temporary := ".ingle-" + hex.EncodeToString(random[:])
	err := create(temporary)
	if err == nil {
		err = unix.Renameat(directory, temporary, directory, name)
	}
	// Also when all went well: a rename between two names of the same file leaves both. The first failure is the one to tell.
	_ = unix.Unlinkat(directory, temporary, 0)
	return err
}

// replaceable tells whether anything is in the place of what is to be made, and refuses what is no file to be replaced:
// a directory, and a device, FIFO or socket unless by one of its own kind.
func replaceable(directory int, name string, kind uint32) (there bool, err error) {
	var former unix.Stat_t
	if err := unix.Fstatat(directory, name, &former, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return false, nil
		}
		return false, err
	}
	switch former.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK, kind:
		return true, nil
	case unix.S_IFDIR:
		return true, unix.EISDIR
	}
	return true, notRegular(name)
}
