package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// diskMount is where the disk with modules is before there is a root file system.
	diskMount = "/ingle.disk"
	// diskModules is what it has for us: uncompressed, and numbered in the order in which to load them.
	diskModules = "ingle"
	// nodeList names devices that are there before their modules are: who opens one has the kernel load it. As in
	// "fuse fuse c10:229": the module, the file below /dev, and what it is.
	nodeList = "modules.devname"
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
	if err := mountModules(device, target); err != nil {
		return err
	}
	return makeNodes(filepath.Join(target, nodeList))
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

// openToAll are devices that any user may open, as udev's rules have it.
var openToAll = map[string]bool{"fuse": true, "net/tun": true}

// makeNodes makes the devices of a list, as kmod's static nodes.
func makeNodes(list string) error {
	content, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var module, name string
		var kind rune
		var major, minor uint32
		if _, err := fmt.Sscanf(line, "%s %s %c%d:%d", &module, &name, &kind, &major, &minor); err != nil {
			return fmt.Errorf("%s: %q: %w", list, line, err)
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%s: %q leads out of /dev", list, name)
		}
		if err := makeNode(filepath.Join("/dev", name), kind, unix.Mkdev(major, minor), openToAll[name]); err != nil {
			return err
		}
	}
	return nil
}

func makeNode(path string, kind rune, number uint64, open bool) error {
	mode := uint32(unix.S_IFCHR | 0o600)
	if kind == 'b' {
		mode = unix.S_IFBLK | 0o600
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := unix.Mknod(path, mode, int(number)); err == unix.EEXIST { // its module is loaded, or built in
		return nil
	} else if err != nil {
		return os.NewSyscallError("mknod "+path, err)
	}
	if open {
		return os.Chmod(path, 0o666)
	}
	return nil
}

func kernelRelease() (string, error) {
	var told unix.Utsname
	if err := unix.Uname(&told); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(told.Release[:]), nil
}
