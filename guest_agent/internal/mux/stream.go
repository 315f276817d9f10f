package mux

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is a connection that the host has opened. Either direction ends by itself.
type Stream struct {
	listener *Listener
	session  *session
	id       uint32

	// All of it is the listener's mutex's.
	changed *sync.Cond
	chunks  []chunk
	taken   int // bytes that were read, and that the host was not told of
	credit  int
	ended   bool // the host's direction, behind the chunks
	broken  bool // nothing can be sent, and nothing more comes
	said    bool // our end
	closed  bool
	reading deadline
	writing deadline
}

// chunk is what one packet brought.
type chunk struct {
	rest []byte
	full *[maxPayload]byte // to be used again; nil for small ones
}

// What is smaller has memory of its own.
const smallChunk = 8 * 1024

var chunks = sync.Pool{New: func() any { return new([maxPayload]byte) }}

// deadline is one direction's.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func newStream(l *Listener, of *session, id uint32) *Stream {
	return &Stream{listener: l, session: of, id: id, credit: window, changed: sync.NewCond(&l.mutex)}
}

// feed keeps what has come; the mutex is held.
func (s *Stream) feed(payload []byte) {
	if len(payload) == 0 || s.closed {
		return
	}
	if len(payload) <= smallChunk {
		s.chunks = append(s.chunks, chunk{rest: append([]byte(nil), payload...)})
		return
	}
	full := chunks.Get().(*[maxPayload]byte)
	s.chunks = append(s.chunks, chunk{full[:copy(full[:], payload)], full})
}

// Read takes what has come; what came before a reset, too.
func (s *Stream) Read(buffer []byte) (int, error) {
	s.listener.mutex.Lock()
	for len(s.chunks) == 0 || s.reading.over() {
		err := s.readError()
		if err != nil {
			s.listener.mutex.Unlock()
			return 0, err
		}
		s.changed.Wait()
	}
	size := 0
	for size < len(buffer) && len(s.chunks) > 0 {
		first := &s.chunks[0]
		part := copy(buffer[size:], first.rest)
		size += part
		if first.rest = first.rest[part:]; len(first.rest) == 0 {
			if first.full != nil {
				chunks.Put(first.full)
			}
			s.chunks[0] = chunk{}
			s.chunks = s.chunks[1:]
		}
	}
	granted := s.grant(size)
	s.listener.mutex.Unlock()
	if granted > 0 {
		_ = s.listener.send(s.session, credit, s.id, binary.BigEndian.AppendUint32(nil, uint32(granted)))
	}
	return size, nil
}

// grant is how many bytes more the host may be told to send.
func (s *Stream) grant(size int) (granted int) {
	if s.taken += size; s.taken >= window/4 && !s.ended && !s.broken {
		granted, s.taken = s.taken, 0
	}
	return granted
}

func (s *Stream) readError() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.reading.over():
		return os.ErrDeadlineExceeded
	case s.broken:
		return lost("read")
	case s.ended:
		return io.EOF
	}
	return nil
}

// Write waits until all of it is on its way.
func (s *Stream) Write(payload []byte) (int, error) {
	for written := 0; ; {
		part, err := s.take(len(payload) - written)
		if err != nil {
			return written, err
		}
		if part == 0 {
			return written, nil
		}
		if err := s.listener.send(s.session, data, s.id, payload[written:written+part]); err != nil {
			return written, err
		}
		written += part
	}
}

// take waits for credit, and takes what a packet can hold of it.
func (s *Stream) take(wanted int) (int, error) {
	s.listener.mutex.Lock()
	defer s.listener.mutex.Unlock()
	for {
		switch {
		case s.closed, s.said:
			return 0, net.ErrClosed
		case s.writing.over():
			return 0, os.ErrDeadlineExceeded
		case s.broken:
			return 0, lost("write")
		}
		if part := min(wanted, s.credit, maxPayload); part > 0 || wanted == 0 {
			s.credit -= part
			return part, nil
		}
		s.changed.Wait()
	}
}

// CloseWrite ends our direction.
func (s *Stream) CloseWrite() error {
	s.listener.mutex.Lock()
	tell := !s.said && !s.broken
	s.said = true
	s.listener.mutex.Unlock()
	if !tell {
		return nil
	}
	return s.listener.send(s.session, end, s.id, nil)
}

// Close gives the stream up, and tells the host so unless it is over.
func (s *Stream) Close() error {
	s.listener.mutex.Lock()
	tell := !s.closed && !s.broken && !(s.said && s.ended)
	s.closed = true
	s.chunks = nil
	if s.session.streams[s.id] == s {
		delete(s.session.streams, s.id)
	}
	s.reading.stop()
	s.writing.stop()
	s.changed.Broadcast()
	s.listener.mutex.Unlock()
	if !tell {
		return nil
	}
	return s.listener.send(s.session, reset, s.id, nil)
}

// LocalAddr is the port.
func (s *Stream) LocalAddr() net.Addr { return s.listener.Addr() }

// RemoteAddr is the host.
func (s *Stream) RemoteAddr() net.Addr { return address("host") }

// SetDeadline is of both directions.
func (s *Stream) SetDeadline(at time.Time) error {
	_ = s.SetReadDeadline(at)
	return s.SetWriteDeadline(at)
}

// SetReadDeadline has reads fail from then on.
func (s *Stream) SetReadDeadline(at time.Time) error {
	s.set(&s.reading, at)
	return nil
}

// SetWriteDeadline has writes fail that wait for the host's credit then.
func (s *Stream) SetWriteDeadline(at time.Time) error {
	s.set(&s.writing, at)
	return nil
}

func (s *Stream) set(d *deadline, at time.Time) {
	s.listener.mutex.Lock()
	defer s.listener.mutex.Unlock()
	d.stop()
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), func() {
			s.listener.mutex.Lock()
			defer s.listener.mutex.Unlock()
			s.changed.Broadcast()
		})
	}
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

func lost(operation string) error {
	return &net.OpError{Op: operation, Net: "virtio-serial", Err: unix.ECONNRESET}
}
