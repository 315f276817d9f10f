package mux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// portPatience is how long a port may take to appear, or the one who has it open to let go.
const portPatience = 5 * time.Second

// portPause is between two looks.
const portPause = 10 * time.Millisecond

// Open opens the virtio-serial port of a name. There is no udev to ask for it.
func Open(name string) (*os.File, error) {
	for until := time.Now().Add(portPatience); ; time.Sleep(portPause) {
		device, err := find(name)
		if err == nil {
			var file *os.File
			if file, err = OpenDevice(device); err == nil {
				return file, nil
			}
		}
		if time.Now().After(until) {
			return nil, err
		}
	}
}

// OpenDevice opens a port by its file.
func OpenDevice(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

func find(name string) (string, error) {
	const class = "/sys/class/virtio-ports"
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("the kernel has no virtio-serial ports: it needs virtio_console, built in or as a module")
	}
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		// A port's name comes a moment after the port.
		if has, err := os.ReadFile(filepath.Join(class, entry.Name(), "name")); err == nil && strings.TrimSpace(string(has)) == name {
			return filepath.Join("/dev", entry.Name()), nil
		}
	}
	return "", fmt.Errorf("no virtio-serial port has the name %s", name)
}

// port is a device that both ends of a session read and write to no end.
type port struct {
	file *os.File
	raw  syscall.RawConn
}

func newPort(file *os.File) (*port, error) {
	raw, err := file.SyscallConn()
	return &port{file, raw}, err
}

// read waits for some bytes. None means that nobody is connected on the host, which is told once and then waited out:
// closing the port would lose what is queued.
func (p *port) read(buffer []byte, hungUp bool) (size int, err error) {
	var failed error
	err = p.raw.Read(func(fd uintptr) bool {
		for {
			size, failed = unix.Read(int(fd), buffer)
			switch {
			case failed == unix.EINTR:
			case failed == unix.EAGAIN:
				return false
			default:
				return failed != nil || size > 0 || !hungUp
			}
		}
	})
	if err == nil && failed != nil {
		err = os.NewSyscallError("read", failed)
	}
	return max(size, 0), err
}

// write waits until all is written, or until it is interrupted; what was written by then stays written.
func (p *port) write(data []byte) error {
	var failed error
	err := p.raw.Write(func(fd uintptr) bool {
		for failed = nil; len(data) > 0; {
			var size int
			size, failed = unix.Write(int(fd), data)
			switch {
			case failed == unix.EINTR:
			case failed == unix.EAGAIN:
				return false
			case failed != nil:
				return true
			default:
				data = data[size:]
			}
		}
		return true
	})
	if err == nil && failed != nil {
		err = os.NewSyscallError("write", failed)
	}
	return err
}

// interrupt ends the write under way, and those to come until proceed.
func (p *port) interrupt() { _ = p.file.SetWriteDeadline(time.Unix(1, 0)) }

func (p *port) proceed() { _ = p.file.SetWriteDeadline(time.Time{}) }
