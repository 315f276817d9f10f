package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

const (
	// MaxEntries is the largest page of a listing.
	MaxEntries = 10_000
	// maxPageBytes bounds a page of long names and link targets.
	maxPageBytes = 2 << 20
	// batchBytes is how much of a page is sent at a time.
	batchBytes = 256 << 10
	// entryCost is what an entry takes besides its texts.
	entryCost = 64
)

// List sends the entries behind a name in the order of their bytes, and answers whether there are more than it sent.
func List(path, after string, limit int, send func([]*agentpb.FileInfo) error) (bool, error) {
	truncated, err := list(path, after, limit, send)
	return truncated, explain(err, path)
}

func list(path, after string, limit int, send func([]*agentpb.FileInfo) error) (bool, error) {
	directory, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer directory.Close()
	names, err := firstNames(directory, after, limit+1)
	if err != nil {
		return false, err
	}
	var batch []*agentpb.FileInfo
	batched, total := 0, 0
	for index, name := range names {
		if index == limit || total > maxPageBytes {
			return true, send(batch)
		}
		info, err := describe(int(directory.Fd()), name, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT { // removed meanwhile
			continue
		}
		if err != nil {
			return false, err
		}
		batch = append(batch, info)
		size := len(info.Name) + len(info.LinkTarget) + entryCost
		batched, total = batched+size, total+size
		if batched > batchBytes {
			if err := send(batch); err != nil {
				return false, err
			}
			batch, batched = nil, 0
		}
	}
	return false, send(batch)
}

// firstNames answers the first so many names behind one, sorted, and holds twice as many at most.
func firstNames(directory *os.File, after string, count int) ([]string, error) {
	var names []string
	for {
		some, err := directory.Readdirnames(1000)
		for _, name := range some {
			if utf8Only(name) > after {
				names = append(names, name)
			}
		}
		if err != nil || len(names) > 2*count {
			slices.Sort(names)
			names = names[:min(len(names), count)]
		}
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// MakeDirectory makes a directory. With parents those above it too, and one that is there is left as it is.
func MakeDirectory(path string, wanted Attributes, parents bool) (*agentpb.FileInfo, error) {
	if path == "/" && parents {
		return Stat(path, false)
	}
	return inParent(path, wanted, parents, func(directory int, name string) error {
		err := unix.Mkdirat(directory, name, 0o700)
		if err == unix.EEXIST && parents {
			var there unix.Stat_t
			if err := unix.Fstatat(directory, name, &there, 0); err != nil {
				return err
			}
			if there.Mode&unix.S_IFMT == unix.S_IFDIR {
				return nil
			}
		}
		if err != nil {
			return err
		}
		made, err := unix.Openat(directory, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(made)
		return wanted.or(newDirectoryMode).apply(made)
	})
}

// Remove removes a file, a symbolic link itself, an empty directory, or, recursive, one with all that is in it.
func Remove(path string, recursive bool) error {
	if path == "/" {
		return badRequest("/ is not removed")
	}
	if recursive {
		if _, err := Stat(path, false); err != nil {
			return err
		}
		return explain(os.RemoveAll(path), path)
	}
	return explain(os.Remove(path), path)
}

// Rename moves a file or directory within a file system. Without replace nothing may be at the new path.
func Rename(path, newPath string, replace bool) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if replace {
		flags = 0
	}
	if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, newPath, flags); err != nil {
		return explain(err, blame(err, path, newPath))
	}
	for _, changed := range []string{filepath.Dir(path), filepath.Dir(newPath)} {
		directory, err := os.Open(changed)
		if errors.Is(err, os.ErrPermission) { // who may write to it needn't be allowed to read it
			continue
		}
		if err != nil {
			return explain(err, changed)
		}
		err = directory.Sync()
		directory.Close()
		if err != nil {
			return explain(err, changed)
		}
	}
	return nil
}

// blame answers which of two paths a rename failed for.
func blame(err error, path, newPath string) string {
	switch err {
	case unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR:
		return newPath
	case unix.ENOENT:
		if _, err := Stat(path, false); err == nil {
			return newPath
		}
	}
	return path
}
