package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceTimeout is how long a device may take to appear after its driver was loaded.
const deviceTimeout = 10 * time.Second

// mountRoot mounts the ext4 on a block device, and grows it when the device has become larger.
func mountRoot(device, target string) error {
	if err := awaitDevice(device); err != nil {
		return err
	}
	wanted, err := blocksToGrowTo(device)
	if err != nil {
		return fmt.Errorf("root device %s: %w", device, err)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	// What is deleted goes back to the host; where the disk can't do that, the kernel says so and goes on.
	if err := unix.Mount(device, target, "ext4", 0, "discard"); err != nil {
		return fmt.Errorf("mount root device %s: %w", device, err)
	}
	if wanted == 0 {
		return nil
	}
	if err := resize(target, wanted); err != nil {
		return fmt.Errorf("grow the file system on %s to %d blocks: %w", device, wanted, err)
	}
	return nil
}

func awaitDevice(device string) error {
	const interval = time.Millisecond
	for deadline := time.Now().Add(deviceTimeout); ; time.Sleep(interval) {
		_, err := os.Stat(device)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("root device %s did not appear within %s", device, deviceTimeout)
		}
	}
}

// Offsets within the superblock, and its place, as in Documentation/filesystems/ext4/super.rst.
const (
	superblockStart   = 1024
	superblockSize    = 1024
	offsetBlocksLow   = 0x04
	offsetBlockSize   = 0x18 // log2 of it, minus 10
	offsetMagic       = 0x38
	offsetIncompat    = 0x60
	offsetBlocksHigh  = 0x150
	magic             = 0xEF53
	incompat64Bit     = 0x80
	largestBlockShift = 6 // 64 KiB
)

// blocksToGrowTo compares the file system with its device, and answers how many blocks it should have; 0: it is as
// large as it can be.
func blocksToGrowTo(device string) (uint64, error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	super := make([]byte, superblockSize)
	if _, err := file.ReadAt(super, superblockStart); err != nil {
		return 0, fmt.Errorf("read the superblock: %w", err)
	}
	size, err := file.Seek(0, 2) // of a block device: its size
	if err != nil {
		return 0, err
	}
	return growth(super, uint64(size))
}

// growth does the arithmetic of blocksToGrowTo.
func growth(super []byte, deviceBytes uint64) (uint64, error) {
	shift := binary.LittleEndian.Uint32(super[offsetBlockSize:])
	if binary.LittleEndian.Uint16(super[offsetMagic:]) != magic || shift > largestBlockShift {
		return 0, errors.New("no ext4 file system on it")
	}
	blocks := uint64(binary.LittleEndian.Uint32(super[offsetBlocksLow:]))
	if binary.LittleEndian.Uint32(super[offsetIncompat:])&incompat64Bit != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(super[offsetBlocksHigh:])) << 32
	}
	if wanted := deviceBytes >> (10 + shift); wanted > blocks {
		return wanted, nil
	}
	return 0, nil
}

// ioctlResize is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64), from fs/ext4/ext4.h.
const ioctlResize = 0x40086610

func resize(mountPoint string, blocks uint64) error {
	directory, err := os.Open(mountPoint)
	if err != nil {
		return err
	}
	defer directory.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, directory.Fd(), ioctlResize, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return errno
	}
	return nil
}
