// Package entropy feeds the kernel's random pool.
package entropy

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlReseed is RNDRESEEDCRNG, _IO('R', 7), from linux/random.h.
const ioctlReseed = 0x5207

// Credit adds bytes to the pool, has the kernel believe in them, and has it make a new key of the pool at once: two
// guests that were one a moment ago draw different numbers from then on. See random(4).
func Credit(bytes []byte) error {
	if len(bytes) == 0 {
		return nil
	}
	device, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	// struct rand_pool_info: entropy in bits, size in bytes, the bytes.
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(bytes)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(bytes)))
	info = append(info, bytes...)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, device.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	if errno != 0 {
		return fmt.Errorf("credit entropy: %w", errno)
	}
	// ENODATA: the pool never had enough to make a first key of, so there is none to replace.
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, device.Fd(), ioctlReseed, 0)
	if errno != 0 && errno != unix.ENODATA {
		return fmt.Errorf("reseed the random number generator: %w", errno)
	}
	return nil
}
