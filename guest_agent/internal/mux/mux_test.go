package mux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is the least that talks to a Listener.
type host struct {
	*os.File
	guest mark
}

var ours = mark{1, 2, 3, 4, 5, 6, 7, 8}

// line is a Listener and a host that has been welcomed.
func line(t testing.TB) (*Listener, *host) {
	here, there := pair(t)
	listener, err := Listen(there)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() { _, _ = here.Write(record(hello, ours, mark{})) }()
	accepted := make(chan struct{})
	go func() { _, _ = listener.Accept(); close(accepted) }()
	h := &host{File: here}
	knocked, welcomed := make([]byte, fillerSize+recordSize), make([]byte, fillerSize+recordSize)
	for _, into := range [][]byte{knocked, welcomed} {
		if _, err := io.ReadFull(here, into); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(knocked, record(knock, mark{}, mark{})) {
		t.Fatal("no knock comes first")
	}
	copy(h.guest[:], welcomed[len(welcomed)-4-markSize:])
	if !bytes.Equal(welcomed, record(welcome, ours, h.guest)) {
		t.Fatal("no welcome follows it")
	}
	h.send(t, open, 1, nil) // for the Accept that began
	<-accepted
	return listener, h
}

func pair(t testing.TB) (here, there *os.File) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	here, there = os.NewFile(uintptr(ends[0]), "here"), os.NewFile(uintptr(ends[1]), "there")
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here, there
}

func (h *host) send(t testing.TB, kind byte, stream uint32, payload []byte) {
	out := make([]byte, headerSize)
	putHeader(out, kind, stream, len(payload))
	if _, err := h.Write(append(append(out, payload...), h.guest[:]...)); err != nil {
		t.Fatal(err)
	}
}

// next is a packet of the guest's.
func (h *host) next(t testing.TB, buffer []byte) packet {
	if _, err := io.ReadFull(h, buffer[:headerSize]); err != nil {
		t.Fatal(err)
	}
	first := binary.BigEndian.Uint32(buffer)
	p := packet{kind: byte(first >> 24), stream: binary.BigEndian.Uint32(buffer[4:])}
	p.payload = buffer[headerSize : headerSize+int(first&0xffffff)]
	if _, err := io.ReadFull(h, buffer[headerSize:headerSize+len(p.payload)+markSize]); err != nil {
		t.Fatal(err)
	}
	if mark(buffer[headerSize+len(p.payload):][:markSize]) != ours {
		t.Fatal("a packet without our mark")
	}
	return p
}

// accept opens stream 2.
func accept(t testing.TB, l *Listener, h *host) net.Conn {
	h.send(t, open, 2, []byte("first"))
	stream, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stream, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestEachDirectionEndsByItself(t *testing.T) {
	listener, host := line(t)
	stream := accept(t, listener, host)
	host.send(t, data, 2, []byte("last"))
	host.send(t, end, 2, nil)
	if got, err := io.ReadAll(stream); err != nil || string(got) != "last" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := stream.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	_ = stream.(*Stream).CloseWrite()
	_ = stream.Close()
	buffer := make([]byte, maxPacket)
	if p := host.next(t, buffer); p.kind != data || string(p.payload) != "answer" {
		t.Fatalf("%+v", p)
	}
	if p := host.next(t, buffer); p.kind != end {
		t.Fatalf("%+v", p)
	}
}

// What came before a reset is read; a write fails at once, also one that waits for credit.
func TestAResetEndsBoth(t *testing.T) {
	listener, host := line(t)
	stream := accept(t, listener, host)
	written := make(chan error)
	go func() {
		_, err := stream.Write(make([]byte, 2*window))
		written <- err
	}()
	buffer := make([]byte, maxPacket)
	for got := 0; got < window; {
		got += len(host.next(t, buffer).payload)
	}
	host.send(t, data, 2, []byte("before"))
	host.send(t, reset, 2, nil)
	if err := <-written; !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("%v", err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(stream, got); err != nil || string(got) != "before" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := stream.Read(got); !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("%v", err)
	}
}

func TestDeadlinesEndWhatWaits(t *testing.T) {
	listener, host := line(t)
	stream := accept(t, listener, host)
	_ = stream.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	_ = stream.SetReadDeadline(time.Time{})
	host.send(t, data, 2, []byte("x"))
	if _, err := stream.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = stream.SetWriteDeadline(time.Now().Add(time.Millisecond))
	go func() { _, _ = io.Copy(io.Discard, host) }()
	if _, err := stream.Write(make([]byte, window+1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v", err)
	}
}

// A writer that nobody reads from does not keep the next session waiting, and its streams are over.
func TestASessionBeginsThoughWritersOfAnotherAreStuck(t *testing.T) {
	listener, host := line(t)
	stream := accept(t, listener, host)
	stuck := make(chan error)
	go func() {
		_, err := stream.Write(make([]byte, window))
		stuck <- err
	}()
	time.Sleep(10 * time.Millisecond) // the socket is full by now, or soon
	go func() { _, _ = host.Write(record(hello, mark{9, 9, 9, 9, 9, 9, 9, 9}, mark{})) }()
	buffer, seen := make([]byte, 64*1024), []byte(nil)
	for !bytes.Contains(seen, magic) || len(seen[bytes.Index(seen, magic):]) < recordSize {
		size, err := host.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, buffer[:size]...)
	}
	<-stuck
	if _, err := stream.Read(buffer); !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("%v", err)
	}
}

const piece = 64 * 1024

// BenchmarkSocket is what passes with nothing of ours around it.
func BenchmarkSocket(b *testing.B) {
	here, there := pair(b)
	buffer := make([]byte, piece)
	go func() {
		for {
			if _, err := there.Write(buffer); err != nil {
				return
			}
		}
	}()
	into := make([]byte, piece)
	b.SetBytes(piece)
	for b.Loop() {
		if _, err := io.ReadFull(here, into); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMuxOut(b *testing.B) {
	listener, host := line(b)
	stream := accept(b, listener, host)
	go func() {
		for buffer := make([]byte, piece); ; {
			if _, err := stream.Write(buffer); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, maxPacket)
	b.SetBytes(piece)
	for b.Loop() {
		if _, err := io.ReadFull(host, buffer[:headerSize+piece+markSize]); err != nil {
			b.Fatal(err)
		}
		host.send(b, credit, 2, []byte{0, 1, 0, 0})
	}
}

func BenchmarkMuxIn(b *testing.B) {
	listener, host := line(b)
	stream := accept(b, listener, host)
	go func() { _, _ = io.Copy(io.Discard, host) }() // the credit: the reader is as fast
	go func() {
		out := make([]byte, maxPacket)
		putHeader(out, data, 2, piece)
		copy(out[headerSize+piece:], host.guest[:])
		for {
			if _, err := host.Write(out[:headerSize+piece+markSize]); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, piece)
	b.SetBytes(piece)
	for b.Loop() {
		if _, err := io.ReadFull(stream, buffer); err != nil {
			b.Fatal(err)
		}
	}
}
