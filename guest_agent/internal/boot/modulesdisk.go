package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// diskMount is where the disk with modules is before there is a root file system.
	diskMount = "/ingle.disk"
	// diskModules is what it has for us: uncompressed, and numbered in the order in which to load them.
	diskModules = "ingle"
	// modulesOf is where modprobe looks, below the kernel's release.
	modulesOf = "/lib/modules"
)

// loadModulesOf loads what is to be loaded of the disk with modules; none has none.
func loadModulesOf(device string) error {
	if device == "" {
		return nil
	}
	if err := mountModules(device, diskMount); err != nil {
		return err
	}
	if err := loadModules(filepath.Join(diskMount, diskModules)); err != nil {
		return err
	}
	if err := unix.Unmount(diskMount, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", diskMount, err)
	}
	return nil
}

// showModules has that disk where modprobe looks. An image that has a tree of the same kernel there keeps it.
func showModules(device string) error {
	if device == "" {
		return nil
	}
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	target := filepath.Join(modulesOf, release)
	if filled, err := isFilled(target); filled || err != nil {
		return err
	}
	return mountModules(device, target)
}

func mountModules(device, target string) error {
	if err := awaitDevice(device); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, target, "squashfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount the disk with modules, %s, on %s: %w", device, target, err)
	}
	return nil
}

// isFilled tells a directory that has anything in it.
func isFilled(path string) (bool, error) {
	info, err := os.Stat(path) // before it is opened: it may be a FIFO
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s is no directory", path)
	}
	directory, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer directory.Close()
	if _, err := directory.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	} else {
		return err == nil, nil
	}
}

func kernelRelease() (string, error) {
	var told unix.Utsname
	if err := unix.Uname(&told); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(told.Release[:]), nil
}
