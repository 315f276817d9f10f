package mux

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Listener accepts the streams that the host opens. It reads nothing before the first Accept: until then the port can be
// handed to another process.
type Listener struct {
	port  *port
	begin sync.Once

	// sending is held while a packet is written; packet is its place.
	sending sync.Mutex
	packet  [maxPacket]byte

	mutex    sync.Mutex // of all below, and of the streams
	session  *session   // nil: none
	accepted []*Stream
	arrived  *sync.Cond
	failure  error
}

// session is what one hello began.
type session struct {
	mark    mark // what the host wants to see
	streams map[uint32]*Stream
}

// Listen serves an open port.
func Listen(file *os.File) (*Listener, error) {
	port, err := newPort(file)
	if err != nil {
		return nil, err
	}
	l := &Listener{port: port}
	l.arrived = sync.NewCond(&l.mutex)
	return l, nil
}

// Inherit serves a port that File gave to this process.
func Inherit(descriptor int, name string) (*Listener, error) {
	unix.CloseOnExec(descriptor)
	if err := unix.SetNonblock(descriptor, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return Listen(os.NewFile(uintptr(descriptor), name))
}

// File is the port, for another process.
func (l *Listener) File() (*os.File, error) { return l.port.file, nil }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return address(l.port.file.Name()) }

// Accept waits for the next stream.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { go l.run() })
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for len(l.accepted) == 0 && l.failure == nil {
		l.arrived.Wait()
	}
	if l.failure != nil {
		return nil, l.failure
	}
	stream := l.accepted[0]
	l.accepted = l.accepted[1:]
	return stream, nil
}

// Close ends all streams, and the port.
func (l *Listener) Close() error {
	l.fail(net.ErrClosed)
	return l.port.file.Close()
}

func (l *Listener) run() {
	err := l.port.write(record(knock, mark{}, mark{}))
	if err == nil {
		err = l.read()
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	l.fail(err)
}

func (l *Listener) fail(err error) {
	l.end()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.failure == nil {
		l.failure = err
	}
	l.arrived.Broadcast()
}

func (l *Listener) read() error {
	var decoder decoder
	hungUp := false
	for {
		size, err := l.port.read(decoder.space(), hungUp)
		if err != nil {
			return err
		}
		if hungUp = size == 0; hungUp {
			l.end()
			continue
		}
		decoder.received(size)
		for more := true; more; {
			packet, host, lost, found := decoder.next()
			more = found || lost
			switch {
			case lost:
				l.end()
			case host != nil:
				guest, err := l.welcome(*host)
				if err != nil {
					return err
				}
				decoder.begin(guest)
			case found:
				l.take(packet)
			}
		}
	}
}

// end is that of the session: the host that had it has gone.
func (l *Listener) end() {
	l.mutex.Lock()
	over := l.session
	l.session = nil
	if over != nil {
		for _, stream := range over.streams {
			stream.broken = true
			stream.changed.Broadcast()
		}
	}
	l.mutex.Unlock()
	l.port.interrupt() // a writer may wait for somebody to read
}

// welcome begins a session, and answers how the host's packets are to end.
func (l *Listener) welcome(host mark) (guest mark, err error) {
	l.end()
	if _, err := rand.Read(guest[:]); err != nil {
		return guest, err
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	l.port.proceed()
	if err := l.port.write(record(welcome, host, guest)); err != nil {
		return guest, err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.session = &session{mark: host, streams: map[uint32]*Stream{}}
	return guest, nil
}

// send writes a packet of a session; errors are net.Errors, as those of a connection that was lost.
func (l *Listener) send(of *session, kind byte, stream uint32, payload []byte) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	l.mutex.Lock()
	over := l.session != of
	l.mutex.Unlock()
	if over {
		return lost("write")
	}
	putHeader(l.packet[:], kind, stream, len(payload))
	size := headerSize + copy(l.packet[headerSize:], payload)
	size += copy(l.packet[size:], of.mark[:])
	if err := l.port.write(l.packet[:size]); err != nil {
		return lost("write")
	}
	return nil
}

// take does what a packet says. Packets of streams that are gone were under way when they went.
func (l *Listener) take(p packet) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	of := l.session
	switch {
	case of == nil: // closed meanwhile
		return
	case p.kind == open:
		l.open(of, p)
		return
	}
	stream := of.streams[p.stream]
	if stream == nil {
		return
	}
	switch p.kind {
	case data:
		stream.feed(p.payload)
	case end:
		stream.ended = true
	case reset:
		stream.ended, stream.broken = true, true
		delete(of.streams, p.stream)
	case credit:
		if len(p.payload) == creditSize {
			stream.credit += int(binary.BigEndian.Uint32(p.payload))
		}
	}
	stream.changed.Broadcast()
}

func (l *Listener) open(of *session, p packet) {
	if len(of.streams) == mostStreams || of.streams[p.stream] != nil {
		go func() { _ = l.send(of, reset, p.stream, nil) }()
		return
	}
	stream := newStream(l, of, p.stream)
	of.streams[p.stream] = stream
	stream.feed(p.payload)
	l.accepted = append(l.accepted, stream)
	l.arrived.Signal()
}

// address is a port, or a stream's end.
type address string

// Network names the kind.
func (a address) Network() string { return "virtio-serial" }

func (a address) String() string { return string(a) }
