package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/ext4"
)

// deviceTimeout is how long a device may take to appear after its driver was loaded.
const deviceTimeout = 10 * time.Second

// mountRoot mounts the ext4 on a block device, and grows it when the device has become larger.
func mountRoot(device, target string) error {
	if err := awaitDevice(device); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	// What is deleted goes back to the host; where the disk can't do that, the kernel says so and goes on.
	if err := unix.Mount(device, target, "ext4", 0, "discard"); err != nil {
		return fmt.Errorf("mount root device %s: %w", device, err)
	}
	return ext4.Grow(device, target)
}

func awaitDevice(device string) error {
	const interval = time.Millisecond
	for deadline := time.Now().Add(deviceTimeout); ; time.Sleep(interval) {
		_, err := os.Stat(device)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the block device %s did not appear within %s", device, deviceTimeout)
		}
	}
}
