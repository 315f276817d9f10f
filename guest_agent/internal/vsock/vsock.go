// Package vsock listens on AF_VSOCK, which package net doesn't know.
package vsock

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Address is an end of a connection.
type Address struct{ CID, Port uint32 }

// Network names the address family.
func (a Address) Network() string { return "vsock" }

func (a Address) String() string { return fmt.Sprintf("vsock:%d:%d", a.CID, a.Port) }

// Listener accepts connections from the host.
type Listener struct {
	file    *os.File
	raw     syscall.RawConn
	address Address
}

// Listen waits for connections on a port.
func Listen(port uint32) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	address := Address{unix.VMADDR_CID_ANY, port}
	file := os.NewFile(uintptr(fd), address.String())
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: address.CID, Port: address.Port}); err != nil {
		_ = file.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		_ = file.Close()
		return nil, os.NewSyscallError("listen", err)
	}
	return listener(file, address)
}

// FromFile takes over what File gave away, perhaps to this process; the file is closed.
func FromFile(file *os.File, port uint32) (*Listener, error) {
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	address := Address{unix.VMADDR_CID_ANY, port}
	return listener(os.NewFile(uintptr(fd), address.String()), address)
}

func listener(file *os.File, address Address) (*Listener, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Listener{file, raw, address}, nil
}

// File is the socket, for another process.
func (l *Listener) File() (*os.File, error) { return l.file, nil }

// Accept waits for the next connection from the host. The guest's own processes could reach the port too, where the
// kernel has a vsock loopback; they are turned away, since on vsock it is the address that says who calls.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		fd, peer, err := l.accept()
		if err != nil {
			return nil, err
		}
		if remote, ok := peer.(*unix.SockaddrVM); ok && remote.CID == unix.VMADDR_CID_HOST {
			address := Address{remote.CID, remote.Port}
			return &connection{os.NewFile(uintptr(fd), address.String()), l.address, address}, nil
		}
		_ = unix.Close(fd)
	}
}

func (l *Listener) accept() (fd int, peer unix.Sockaddr, err error) {
	var acceptErr error
	err = l.raw.Read(func(listener uintptr) bool {
		for {
			fd, peer, acceptErr = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if acceptErr != unix.EINTR && acceptErr != unix.ECONNABORTED {
				return acceptErr != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return -1, nil, net.ErrClosed
	}
	return fd, peer, os.NewSyscallError("accept4", acceptErr)
}

// Close stops listening.
func (l *Listener) Close() error { return l.file.Close() }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.address }

// connection is a stream socket as a file: os.File gives it the poller and deadlines.
type connection struct {
	*os.File
	local, remote Address
}

func (c *connection) LocalAddr() net.Addr  { return c.local }
func (c *connection) RemoteAddr() net.Addr { return c.remote }

// CloseWrite ends our direction.
func (c *connection) CloseWrite() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var shutdownErr error
	err = raw.Control(func(fd uintptr) { shutdownErr = unix.Shutdown(int(fd), unix.SHUT_WR) })
	if err != nil {
		return err
	}
	return os.NewSyscallError("shutdown", shutdownErr)
}
