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
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Listener{file, raw, address}, nil
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	var fd int
	var peer unix.Sockaddr
	var acceptErr error
	err := l.raw.Read(func(listener uintptr) bool {
		for {
			fd, peer, acceptErr = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if acceptErr != unix.EINTR && acceptErr != unix.ECONNABORTED {
				return acceptErr != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return nil, net.ErrClosed
	}
	if acceptErr != nil {
		return nil, os.NewSyscallError("accept4", acceptErr)
	}
	remote := Address{}
	if vm, ok := peer.(*unix.SockaddrVM); ok {
		remote = Address{vm.CID, vm.Port}
	}
	return &connection{os.NewFile(uintptr(fd), remote.String()), l.address, remote}, nil
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
