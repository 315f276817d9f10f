package files

import (
	"io"
	"net/url"
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

// List sends the entries of a directory in the order of their names' bytes, from where `after` says. It answers whether
// there are more than it sent, and where those begin.
func List(
	path, after string, limit int, send func([]*agentpb.FileInfo) error,
) (*agentpb.ListDirectoryResponse, error) {
	former, err := url.PathUnescape(after)
	if err != nil {
		return nil, badRequest("%q is no place where a page begins", after)
	}
	response, err := list(path, former, limit, send)
	return response, explain(err, path)
}

func list(
	path, after string, limit int, send func([]*agentpb.FileInfo) error,
) (*agentpb.ListDirectoryResponse, error) {
	directory, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	names, err := firstNames(directory, after, limit+1)
	if err != nil {
		return nil, err
	}
	var batch []*agentpb.FileInfo
	batched, total := 0, 0
	for index, name := range names {
		if index == limit || total > maxPageBytes {
			// Escaped, since a name needn't be UTF-8, and a field of the answer must be.
			next := url.PathEscape(names[index-1])
			return &agentpb.ListDirectoryResponse{Truncated: true, NextAfter: next}, send(batch)
		}
		info, err := describe(int(directory.Fd()), name, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		batch = append(batch, info)
		size := len(info.Name) + len(info.RawName) + len(info.LinkTarget) + len(info.RawLinkTarget) + entryCost
		batched, total = batched+size, total+size
		if batched > batchBytes {
			if err := send(batch); err != nil {
				return nil, err
			}
			batch, batched = nil, 0
		}
	}
	return &agentpb.ListDirectoryResponse{}, send(batch)
}

// firstNames answers the first so many names behind one, sorted, and holds twice as many at most.
func firstNames(directory *os.File, after string, count int) ([]string, error) {
	var names []string
	for {
		some, err := directory.Readdirnames(1000)
		for _, name := range some {
			if name > after {
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

// Rename moves a file or directory within a file system. Without replace nothing may be at the new path.
func Rename(path, newPath string, replace bool) error {
	if path == "/" || newPath == "/" {
		return badRequest("/ is neither moved nor replaced")
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if replace {
		flags = 0
	}
	from, err := openDirectory(filepath.Dir(path), false)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := openDirectory(filepath.Dir(newPath), false)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	switch err := unix.Renameat2(from, filepath.Base(path), to, filepath.Base(newPath), flags); err {
	case nil:
	case unix.EINVAL:
		return badRequest("%s can't be moved into itself, to %s", path, newPath)
	case unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR:
		return explain(err, newPath)
	default:
		return explain(err, path)
	}
	if err := syncDirectory(from); err != nil {
		return explain(err, filepath.Dir(path))
	}
	return explain(syncDirectory(to), filepath.Dir(newPath))
}
