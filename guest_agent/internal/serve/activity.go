package serve

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/ports"
)

// activity counts what is under way, and remembers when a byte last passed. Nothing here waits for anybody.
type activity struct {
	execs    atomic.Int32
	forwards atomic.Int32
	last     atomic.Int64 // since began
}

// began is when the agent did. Times are kept as distances from it: a clock that is set must not change them.
var began = time.Now()

func (a *activity) touch() { a.last.Store(int64(time.Since(began))) }

func (a *activity) latest() time.Time { return began.Add(time.Duration(a.last.Load())) }

// during counts a piece of work as long as it takes; so does each byte of its connection that comes or goes.
func (c *connection) during(counter *atomic.Int32, work func() error) error {
	counter.Add(1)
	defer counter.Add(-1)
	return c.lively(work)
}

// lively notes each byte of the connection as long as the work takes.
func (c *connection) lively(work func() error) error {
	c.server.activity.touch()
	defer c.server.activity.touch()
	c.stream.lively.Store(true)
	return work()
}

// reportActivity answers at once, whoever else is stuck.
func (c *connection) reportActivity() error {
	sessions := c.server.sessions.Activity()
	latest := c.server.activity.latest()
	if sessions.Latest.After(latest) {
		latest = sessions.Latest
	}
	connections := 0
	if c.server.Guest {
		connections = ports.Connections()
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Activity{Activity: &agentpb.ActivityResponse{
		IdleMilliseconds: uint64(max(0, time.Since(latest).Milliseconds())),
		Execs:            uint32(c.server.activity.execs.Load()),
		Sessions:         uint32(sessions.Count),
		AttachedSessions: uint32(sessions.Attached),
		Forwards:         uint32(c.server.activity.forwards.Load()),
		Connections:      uint32(connections),
	}}})
}

// watchedStream is a connection that notes when something passes, once that counts.
type watchedStream struct {
	net.Conn
	activity *activity
	lively   atomic.Bool
}

func (s *watchedStream) Read(buffer []byte) (int, error) {
	size, err := s.Conn.Read(buffer)
	s.note(size)
	return size, err
}

func (s *watchedStream) Write(data []byte) (int, error) {
	size, err := s.Conn.Write(data)
	s.note(size)
	return size, err
}

// CloseWrite ends our direction, where the transport can.
func (s *watchedStream) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// widen has a unix socket hold more: whoever waits for room in it is woken when a quarter is left, which must last until
// then. The other transports see to that themselves.
func (s *watchedStream) widen(size int) {
	if local, ok := s.Conn.(*net.UnixConn); ok {
		_ = local.SetWriteBuffer(size) // it works without, too
	}
}

func (s *watchedStream) note(size int) {
	if size > 0 && s.lively.Load() {
		s.activity.touch()
	}
}

// SyscallConn is the socket itself, where the transport has one. What passes there is not noted.
func (s *watchedStream) SyscallConn() (syscall.RawConn, error) {
	if stream, ok := s.Conn.(syscall.Conn); ok {
		return stream.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
