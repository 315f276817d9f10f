package files

import (
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

const (
	// maxLinks is how many symbolic links a path may go through; see path_resolution(7).
	maxLinks = 40
	// anyDirectory is enough to work in a directory, also in one that may not be listed.
	anyDirectory = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// openDirectory opens a directory in which something is to be changed; make: and makes what is missing of it.
//
// Whoever owns a directory on the way can put a symbolic link there at any time, also while we look. So a link is
// followed when it is root's or that of the user we work for, and otherwise only to a directory of its own owner: nobody
// gets us to change what they could not change themselves.
func openDirectory(path string, make bool) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	directory, err := unix.Openat2(unix.AT_FDCWD, path, how)
	if err == nil {
		return directory, nil
	}
	w := &walk{make: make, rest: components(path)}
	if err := w.toRoot(); err != nil {
		return -1, explain(err, path)
	}
	directory, err = w.toEnd()
	return directory, explain(err, path)
}

// toFile answers, for a name in a directory, where and how what it stands for is called: the same, or what a symbolic
// link there leads to, whether that is there already or not. It takes the directory over.
func toFile(directory int, name string) (int, string, error) {
	w := &walk{directory: directory}
	for {
		var found unix.Stat_t
		err := unix.Fstatat(w.directory, name, &found, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT || err == nil && found.Mode&unix.S_IFMT != unix.S_IFLNK {
			return w.directory, name, nil
		}
		target := ""
		if err == nil {
			target, err = readlink(w.directory, name)
		}
		way := components(target)
		if err == nil && (len(way) == 0 || slices.Contains([]string{".", ".."}, way[len(way)-1])) {
			err = unix.EISDIR
		}
		if err == nil {
			err = w.detour(filepath.IsAbs(target), way[:len(way)-1], name, found.Uid)
		}
		if err != nil {
			w.close()
			return -1, "", err
		}
		if _, err := w.toEnd(); err != nil {
			return -1, "", err
		}
		name = way[len(way)-1]
	}
}

// walk goes through a path, one component at a time, with the directory it has reached held open.
type walk struct {
	make      bool
	directory int
	rest      []string
	links     int
	// refused are links that are not followed, whoever they belong to.
	refused map[inode]struct{}
	// detours are links that have not been followed to their end, the innermost last.
	detours []detour
}

// detour is a link of somebody we don't trust, and how much of the path is left where it ends.
type detour struct {
	left  int
	owner uint32
	name  string
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(char rune) bool { return char == '/' })
}

func (w *walk) close() { unix.Close(w.directory) }

func (w *walk) enter(directory int) {
	w.close()
	w.directory = directory
}

func (w *walk) toRoot() error {
	root, err := unix.Open("/", anyDirectory, 0)
	w.directory = root
	return err
}

// toEnd goes all the way and answers the directory it has reached, or leaves it.
func (w *walk) toEnd() (int, error) {
	for {
		err := w.endDetours()
		if err == nil && len(w.rest) == 0 {
			return w.directory, nil
		}
		if err == nil {
			name := w.rest[0]
			w.rest = w.rest[1:]
			err = w.take(name)
		}
		if err != nil {
			w.close()
			return -1, err
		}
	}
}

func (w *walk) endDetours() error {
	for len(w.detours) > 0 && len(w.rest) <= w.detours[len(w.detours)-1].left {
		last := w.detours[len(w.detours)-1]
		w.detours = w.detours[:len(w.detours)-1]
		var here unix.Stat_t
		if err := unix.Fstat(w.directory, &here); err != nil {
			return err
		}
		if here.Uid != last.owner {
			return failure.New(agentpb.ErrorCode_ERROR_CODE_SYMLINK_REFUSED,
				"the link %q of uid %d leads to a directory of uid %d, and is not followed", last.name, last.owner, here.Uid)
		}
	}
	return nil
}

func (w *walk) take(name string) error {
	if name == "." {
		return nil
	}
	flags := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	found, err := unix.Openat(w.directory, name, flags, 0)
	if err == unix.ENOENT && w.make {
		if err := unix.Mkdirat(w.directory, name, newDirectoryMode); err != nil && err != unix.EEXIST {
			return err
		}
		found, err = unix.Openat(w.directory, name, flags, 0)
	}
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(found, &stat); err != nil {
		unix.Close(found)
		return err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w.enter(found)
		return nil
	case unix.S_IFLNK:
		defer unix.Close(found)
		if _, refused := w.refused[inode{stat.Dev, stat.Ino}]; refused {
			return unix.ELOOP
		}
		target, err := readlink(found, "")
		if err != nil {
			return err
		}
		return w.detour(filepath.IsAbs(target), components(target), name, stat.Uid)
	}
	unix.Close(found)
	return unix.ENOTDIR
}

// detour puts what a link says before the rest of the path.
func (w *walk) detour(fromRoot bool, way []string, name string, owner uint32) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	if self, _ := unix.SetfsuidRetUid(-1); owner != 0 && int(owner) != self {
		w.detours = append(w.detours, detour{left: len(w.rest), owner: owner, name: name})
	}
	w.rest = slices.Concat(way, w.rest)
	if fromRoot {
		w.close()
		return w.toRoot()
	}
	return nil
}

// sync flushes a directory to the disk. Who may write to it needn't be allowed to read it, and can't do this then.
func syncDirectory(directory int) error {
	readable, err := unix.Openat(directory, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.EACCES {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(readable)
	return unix.Fsync(readable)
}
