package files

import (
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remove removes a file, a symbolic link itself, an empty directory, or, recursive, one with all that is in it.
func Remove(path string, recursive bool) error {
	if path == "/" {
		return badRequest("/ is not removed")
	}
	parent, err := openDirectory(filepath.Dir(path), false)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	err = remove(parent, filepath.Base(path), path, recursive)
	if err != nil {
		return err
	}
	return explain(syncDirectory(parent), filepath.Dir(path))
}

// remove removes what is called name in a directory that is held open; path is for messages.
func remove(parent int, name, path string, recursive bool) error {
	err := unix.Unlinkat(parent, name, 0)
	if err != unix.EISDIR {
		return explain(err, path)
	}
	err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY || !recursive {
		return explain(err, path)
	}
	if err := removeAllIn(parent, name, path); err != nil {
		return err
	}
	return explain(unix.Unlinkat(parent, name, unix.AT_REMOVEDIR), path)
}

func removeAllIn(parent int, name, path string) error {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	descriptor, err := unix.Openat(parent, name, flags, 0)
	if err != nil {
		return explain(err, path)
	}
	directory := os.NewFile(uintptr(descriptor), path)
	defer directory.Close()
	for found := 0; ; {
		names, err := directory.Readdirnames(1000)
		for _, name := range names {
			inner := filepath.Join(path, name)
			if err := remove(descriptor, name, inner, true); err != nil && !vanished(descriptor, name) {
				return err
			}
		}
		found += len(names)
		if err == io.EOF {
			if found == 0 {
				return nil
			}
			// What is removed while it is read may hide something else from the reader.
			found = 0
			_, err = directory.Seek(0, io.SeekStart)
		}
		if err != nil {
			return explain(err, path)
		}
	}
}
