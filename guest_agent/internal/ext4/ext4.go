// Package ext4 makes a file system as large as its device.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// Grow has the mounted file system take all of its device.
func Grow(device, mountPoint string) error {
	wanted, err := blocksToGrowTo(device)
	if err == nil && wanted > 0 {
		err = resize(mountPoint, wanted)
	}
	if err != nil {
		return fmt.Errorf("grow the file system on %s: %w", device, err)
	}
	return nil
}

// GrowTo is Grow of a device that is about to have so many bytes: the kernel hears of it by an interrupt.
func GrowTo(size uint64, device, mountPoint string, patience time.Duration) error {
	const interval = 5 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(interval) {
		present, err := sizeOf(device)
		if err != nil {
			return err
		}
		if present >= size {
			return Grow(device, mountPoint)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has %d bytes, not %d", device, present, size)
		}
	}
}

func sizeOf(device string) (uint64, error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd) // of a block device: its size
	return uint64(size), err
}

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
	size, err := sizeOf(device)
	if err != nil {
		return 0, err
	}
	return growth(super, size)
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
