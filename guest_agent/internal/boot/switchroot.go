package boot

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// switchRoot makes the file system on newRoot the root, moves the early mounts along, and empties the initramfs, whose
// memory is the guest's and whose files hold the token.
func switchRoot(newRoot string) error {
	for _, m := range earlyMounts {
		target := filepath.Join(newRoot, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.target, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to %s: %w", m.target, target, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := removeAllBut(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root file system to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.Chdir("/")
}

// removeAllBut deletes what is in the initramfs. Nothing else is mounted in it any more but the new root.
func removeAllBut(newRoot string) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join("/", entry.Name())
		if path == newRoot {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
