// Package dial connects to servers in the guest, and says by code why one can't be reached.
package dial

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// Conn is a connection whose two directions end one by one.
type Conn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// loopback is where a server of the guest's own listens: on both, or on either.
var loopback = []string{"127.0.0.1", "::1"}

// TCP connects to a port of a host; without one, or with localhost, to whichever loopback address answers.
func TCP(host string, port uint16, timeout time.Duration) (Conn, error) {
	context, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	hosts := []string{host}
	if host == "" || host == "localhost" {
		hosts = loopback
	}
	var first error
	for _, host := range hosts {
		var dialer net.Dialer
		stream, err := dialer.DialContext(context, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return stream.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, explain(first, tcpName(host, port), timeout)
}

// Unix connects to a socket in the guest's file system.
func Unix(path string, timeout time.Duration) (Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	stream, err := dialer.Dial("unix", path)
	if err != nil {
		return nil, explain(err, path, timeout)
	}
	return stream.(*net.UnixConn), nil
}

// Abort ends a connection at once: the other side of a TCP connection sees it reset, and not ended well.
func Abort(stream Conn) {
	if tcp, ok := stream.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = stream.Close()
}

// Broken tells by code that a connection ended otherwise than by an end of both directions.
func Broken(err error) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_CONNECTION_RESET, "the other side broke the connection: %v", cause(err))
}

func tcpName(host string, port uint16) string {
	if host == "" {
		return "port " + strconv.Itoa(int(port))
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func explain(err error, name string, timeout time.Duration) error {
	var lookup *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &lookup) && !lookup.IsTimeout:
		return refused(agentpb.ErrorCode_ERROR_CODE_HOST_UNREACHABLE, "%s: the guest can't resolve the name", name)
	case errors.Is(err, unix.ECONNREFUSED):
		return refused(agentpb.ErrorCode_ERROR_CODE_CONNECTION_REFUSED, "nobody listens on %s in the guest", name)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return refused(agentpb.ErrorCode_ERROR_CODE_SOCKET_NOT_FOUND, "there is no socket %s in the guest", name)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return refused(agentpb.ErrorCode_ERROR_CODE_CONNECTION_NOT_PERMITTED, "%s: %v", name, cause(err))
	case errors.As(err, &network) && network.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.EAGAIN):
		return refused(agentpb.ErrorCode_ERROR_CODE_CONNECTION_TIMED_OUT, "%s did not answer within %s", name, timeout)
	}
	return refused(agentpb.ErrorCode_ERROR_CODE_HOST_UNREACHABLE, "%s: %v", name, cause(err))
}

// cause is what the kernel said, without the words of those who passed it on.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func refused(code agentpb.ErrorCode, format string, arguments ...any) error {
	return failure.New(code, format, arguments...)
}
