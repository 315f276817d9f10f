package files

import (
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

const (
	newFileMode      = 0o644
	newDirectoryMode = 0o755
)

// Attributes are what a caller wants of a new file; Mode nil and ids of -1: nothing in particular.
type Attributes struct {
	Mode     *uint32
	UID, GID int
}

// check refuses modes that no file can have.
func (a Attributes) check() error {
	if a.Mode != nil && *a.Mode > permissions {
		return badRequest("mode %#o: at most 07777 is allowed", *a.Mode)
	}
	return nil
}

// apply sets what is wanted. The owner comes first, since chown clears setuid and setgid.
func (a Attributes) apply(file int) error {
	if a.UID >= 0 || a.GID >= 0 {
		if err := unix.Fchown(file, a.UID, a.GID); err != nil {
			return err
		}
	}
	if a.Mode != nil {
		return unix.Fchmod(file, *a.Mode)
	}
	return nil
}

// or fills in what is not wanted otherwise.
func (a Attributes) or(mode uint32) Attributes {
	if a.Mode == nil {
		a.Mode = &mode
	}
	return a
}

// Write replaces a file with what the source gives, as a whole or not at all: whoever opens it meanwhile sees the old
// content or the new. A symbolic link at the end of the path is replaced, not followed.
func Write(path string, wanted Attributes, parents bool, source io.Reader) (*agentpb.FileInfo, error) {
	return inParent(path, wanted, parents, func(directory int, name string) error {
		var former unix.Stat_t
		switch err := unix.Fstatat(directory, name, &former, unix.AT_SYMLINK_NOFOLLOW); {
		case err == unix.ENOENT:
		case err != nil:
			return err
		default:
			var err error
			if wanted, err = inherit(wanted, former, path); err != nil {
				return err
			}
		}
		return replace(directory, name, wanted.or(newFileMode), source)
	})
}

// inParent works in the directory of a path, held open: nobody can put another in its place.
func inParent(
	path string, wanted Attributes, parents bool, work func(directory int, name string) error,
) (*agentpb.FileInfo, error) {
	if err := wanted.check(); err != nil {
		return nil, err
	}
	if path == "/" {
		return nil, explain(unix.EISDIR, path)
	}
	directory, err := openDirectory(filepath.Dir(path), parents)
	if err != nil {
		return nil, err
	}
	defer unix.Close(directory)
	if err := work(directory, filepath.Base(path)); err != nil {
		return nil, explain(err, path)
	}
	info, err := describe(directory, filepath.Base(path), unix.AT_SYMLINK_NOFOLLOW)
	return info, explain(err, path)
}

// inherit takes over mode and owner of the file to be replaced. Who is not root can't give files away: theirs it is.
func inherit(wanted Attributes, former unix.Stat_t, path string) (Attributes, error) {
	switch former.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return wanted, nil
	case unix.S_IFDIR:
		return wanted, unix.EISDIR
	case unix.S_IFREG:
	default:
		return wanted, notRegular(path)
	}
	if fsuid, _ := unix.SetfsuidRetUid(-1); fsuid == 0 && wanted.UID < 0 {
		wanted.UID = int(former.Uid)
		if wanted.GID < 0 {
			wanted.GID = int(former.Gid)
		}
	}
	return wanted.or(former.Mode & permissions), nil
}

func replace(directory int, name string, wanted Attributes, source io.Reader) error {
	err := putInPlace(directory, name, func(temporary string) error {
		file, err := newFile(directory, temporary)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := wanted.apply(int(file.Fd())); err != nil {
			return err
		}
		return fill(file, source)
	})
	if err != nil {
		return err
	}
	return syncDirectory(directory)
}

// newFile makes a file that only its maker may use.
func newFile(directory int, name string) (*os.File, error) {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	descriptor, err := unix.Openat(directory, name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(descriptor), name), nil
}

// chunks are what files are filled from.
var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// fill writes all of the source, to the disk.
func fill(file *os.File, source io.Reader) error {
	if err := transfer(file, source); err != nil {
		return err
	}
	return file.Sync()
}

// transfer writes all of the source. Whole chunks at a time: pages that are not cut are copied fastest.
func transfer(file *os.File, source io.Reader) error {
	buffer := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buffer)
	for {
		filled, ended := 0, error(nil)
		for filled < chunk && ended == nil {
			var size int
			size, ended = source.Read(buffer[filled:])
			filled += size
		}
		if _, err := file.Write(buffer[:filled]); err != nil {
			return err
		}
		if ended == io.EOF {
			return nil
		}
		if ended != nil {
			return ended
		}
	}
}
