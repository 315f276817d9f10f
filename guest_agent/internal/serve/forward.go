package serve

import (
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/dial"
	"ingle.dev/guest_agent/internal/frame"
)

// defaultConnectTimeout is how long a server in the guest may take to accept.
const defaultConnectTimeout = 10 * time.Second

// longestSocketPath is what sockaddr_un holds, without the NUL; see unix(7).
const longestSocketPath = 107

// forwarding is a caller and the server in the guest it talks to.
type forwarding struct {
	*connection
	target dial.Conn
	input  *stdinQueue
}

func (c *connection) forward(request *agentpb.ForwardRequest) error {
	// The caller may take the greeting as the sign to send, and connecting may take its time.
	if err := c.writer.Flush(); err != nil {
		return err
	}
	target, err := connect(request)
	if err != nil {
		return err
	}
	sink := &targetInput{target: target, failed: make(chan struct{})}
	f := &forwarding{connection: c, target: target, input: newInputQueue(sink)}
	return f.run(sink)
}

func connect(request *agentpb.ForwardRequest) (dial.Conn, error) {
	timeout := time.Duration(min(request.TimeoutMilliseconds, longestTimeout)) * time.Millisecond
	if timeout == 0 {
		timeout = defaultConnectTimeout
	}
	switch target := request.Target.(type) {
	case *agentpb.ForwardRequest_Tcp:
		if port := target.Tcp.Port; port < 1 || port > math.MaxUint16 {
			return nil, badRequest("port %d: 1 to %d is allowed", port, math.MaxUint16)
		}
		return dial.TCP(target.Tcp.Host, uint16(target.Tcp.Port), timeout)
	case *agentpb.ForwardRequest_UnixPath:
		path := target.UnixPath
		if !strings.HasPrefix(path, "/") || len(path) > longestSocketPath || strings.Contains(path, "\x00") {
			return nil, badRequest("socket %q: an absolute path of at most %d bytes is allowed", path, longestSocketPath)
		}
		return dial.Unix(path, timeout)
	}
	return nil, badRequest("a forward needs a target: a TCP port or the path of a unix socket")
}

func (f *forwarding) run(sink *targetInput) error {
	// A caller that can't be told has left, which the reading side sees and acts upon; so errors of sending stay here.
	_ = f.send(frame.Connected, &agentpb.ForwardConnected{Address: f.target.RemoteAddr().String()})
	drained := make(chan struct{})
	go func() { defer close(drained); f.input.drain(f.grant) }()
	left := make(chan error, 1)
	go func() { left <- f.obey() }()

	err := f.deliver()
	if err == nil {
		select {
		case <-drained: // the caller has ended as well, and all of it is written
		case <-sink.failed:
		case departure := <-left:
			left <- departure
		}
		err = sink.err()
	}
	gone := errors.Is(err, net.ErrClosed) // nobody but obey closes it
	_ = f.target.Close()
	f.input.abandon()
	<-drained
	select {
	case departure := <-left:
		return departure
	default:
		if gone {
			return <-left
		}
	}
	if err != nil {
		f.refuse(dial.Broken(err))
	} else {
		_ = f.respond(&agentpb.Response{Result: &agentpb.Response_Forward{Forward: &agentpb.ForwardResponse{}}})
	}
	f.finish()
	<-left
	return nil
}

// deliver sends what the target says, and DATA_END at its end.
func (f *forwarding) deliver() error {
	raw, err := f.target.SyscallConn()
	for err == nil {
		err = forward(raw, f.writer, frame.Data)
	}
	if err != io.EOF {
		return err
	}
	return f.writer.Write(frame.DataEnd, nil)
}

// obey takes what the caller sends until it leaves or breaks the protocol; then the target's connection is broken.
func (f *forwarding) obey() error {
	for {
		kind, payload, err := frame.Read(f.reader, frame.MaxPayload)
		if err == nil {
			err = f.take(kind, payload)
		}
		if err != nil {
			dial.Abort(f.target)
			// Whoever has left takes nothing any more: it must not keep us waiting.
			_ = f.stream.SetWriteDeadline(time.Now().Add(lingerTimeout))
			return err
		}
	}
}

func (f *forwarding) take(kind frame.Type, payload []byte) error {
	switch kind {
	case frame.Stdin:
		return f.input.push(payload)
	case frame.StdinEOF:
		f.input.close()
		return nil
	}
	return badRequest("frame of type %d during a forward", kind)
}

func (f *forwarding) grant(bytes int) {
	_ = f.send(frame.Window, &agentpb.ExecWindow{Bytes: uint32(bytes)})
}

// targetInput is the sending direction of the target. Closing it leaves the other one open.
type targetInput struct {
	target dial.Conn
	mutex  sync.Mutex
	broken error
	failed chan struct{} // closed when something could not be written
}

func (t *targetInput) Write(data []byte) (int, error) {
	size, err := t.target.Write(data)
	if err != nil {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		if t.broken == nil {
			t.broken = err
			close(t.failed)
		}
	}
	return size, err
}

func (t *targetInput) Close() error { return t.target.CloseWrite() }

func (t *targetInput) err() error {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.broken
}
