package files

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

const appending = unix.O_WRONLY | unix.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// Append adds to the end of a regular file, which is made when it is missing. A symbolic link is refused. All of the
// source is taken before the file is touched: one that breaks off leaves it as it was.
func Append(path string, wanted Attributes, parents bool, source io.Reader) (*agentpb.FileInfo, error) {
	return inParent(path, wanted, parents, func(directory int, name string) error {
		switch file, err := openToAppend(directory, name, path, 0); {
		case err == nil:
			_ = file.Close()
		case !errors.Is(err, unix.ENOENT):
			return err // at once, and not when everything was sent
		}
		aside, err := openAside(directory)
		if err != nil {
			return err
		}
		defer aside.Close()
		if err := transfer(aside, source); err != nil {
			return err
		}
		if _, err := aside.Seek(0, io.SeekStart); err != nil {
			return err
		}
		file, err := openToAppend(directory, name, path, unix.O_CREAT|unix.O_EXCL)
		if err == nil {
			wanted = wanted.or(newFileMode)
		} else if errors.Is(err, unix.EEXIST) {
			file, err = openToAppend(directory, name, path, 0)
		}
		if err != nil {
			return err
		}
		defer file.Close()
		if err := wanted.apply(int(file.Fd())); err != nil {
			return err
		}
		if err := fill(file, aside); err != nil {
			return err
		}
		return syncDirectory(directory)
	})
}

func openToAppend(directory int, name, path string, flags int) (*os.File, error) {
	descriptor, err := unix.Openat(directory, name, appending|flags, 0o600)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(descriptor), path)
	if _, err := ofRegular(descriptor, path); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// openAside makes a nameless file, which is gone when it is closed: where the directory is, or where everybody may write.
func openAside(directory int) (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_TMPFILE | unix.O_CLOEXEC
	descriptor, err := unix.Openat(directory, ".", flags, 0o600)
	for _, elsewhere := range []string{"/var/tmp", "/tmp"} {
		if err == nil {
			break
		}
		descriptor, err = unix.Open(elsewhere, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(descriptor), "aside"), nil
}
