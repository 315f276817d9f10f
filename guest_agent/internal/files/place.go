package files

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// beneath: no component of a name below the directory may be a symbolic link, or lead out of it; see openat2(2).
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS

// mostLinks bounds what is remembered of an archive's own links. With more of them none is followed any more.
const mostLinks = 1 << 16

// open opens a directory below the root; create: an archive may name what is in a directory without the directory.
func (u *unpacker) open(name string, create bool) (int, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath}
	directory, err := unix.Openat2(u.root, name, how)
	if err == unix.ELOOP && len(u.links) < mostLinks {
		directory, err = u.follow(name)
	}
	if err != unix.ENOENT || !create || name == "." {
		return directory, err
	}
	parent, err := u.open(path.Dir(name), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, path.Base(name), newDirectoryMode); err != nil {
		return -1, err
	}
	return u.open(name, false)
}

// follow opens a directory below the root to which links lead that were there before.
func (u *unpacker) follow(name string) (int, error) {
	root, err := unix.Openat(u.root, ".", anyDirectory, 0)
	if err != nil {
		return -1, err
	}
	w := &walk{directory: root, rest: components(name), refused: u.links}
	found, err := w.toEnd()
	if err != nil || u.wholeGuest {
		return found, err
	}
	if err := u.within(found, name); err != nil {
		unix.Close(found)
		return -1, err
	}
	return found, nil
}

// within refuses a directory to which the name doesn't lead if it may not leave the root.
func (u *unpacker) within(directory int, name string) error {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH}
	beneath, err := unix.Openat2(u.root, name, how)
	if err == unix.EXDEV {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_SYMLINK_REFUSED,
			"%s: a symbolic link leads out of the directory that is copied to, and is not followed", name)
	}
	if err != nil {
		return err
	}
	defer unix.Close(beneath)
	if !same(directory, beneath, ".") {
		return unix.ELOOP // somebody changes links meanwhile
	}
	return nil
}

// same tells whether an open directory is what a name stands for.
func same(directory, parent int, name string) bool {
	var here, there unix.Stat_t
	err := errors.Join(unix.Fstat(directory, &here), unix.Fstatat(parent, name, &there, unix.AT_SYMLINK_NOFOLLOW))
	return err == nil && inode{here.Dev, here.Ino} == inode{there.Dev, there.Ino}
}

// makeDirectory makes one that only its maker may use, until it is finished; or takes the one that is there.
func (u *unpacker) makeDirectory(parent int, name, archived string) (made bool, err error) {
	err = unix.Mkdirat(parent, name, 0o700)
	if err != unix.EEXIST {
		return err == nil, err
	}
	there, err := u.open(archived, false)
	if err != nil {
		return false, err
	}
	return false, unix.Close(there)
}

// remember keeps a link of the archive's own in mind.
func (u *unpacker) remember(parent int, name string) error {
	var made unix.Stat_t
	if err := unix.Fstatat(parent, name, &made, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if made.Mode&unix.S_IFMT == unix.S_IFLNK && len(u.links) < mostLinks {
		u.links[inode{made.Dev, made.Ino}] = struct{}{}
	}
	return nil
}

// nameWithin cleans a name of an archive, which must not leave the directory that it is unpacked in.
func (u *unpacker) nameWithin(name string) (string, error) {
	if len(name) >= unix.PathMax {
		return "", badArchive("a name of %d bytes; at most %d are allowed", len(name), unix.PathMax-1)
	}
	parts := strings.Split(name, "/")
	if name == "" || parts[0] == "" || strings.ContainsRune(name, 0) || slices.Contains(parts, "..") {
		return "", badArchive("the name %q", name)
	}
	if u.top != "" {
		parts[0] = u.top
	}
	return path.Join(parts...), nil
}
