package serve

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/files"
	"ingle.dev/guest_agent/internal/frame"
)

// wired is the end of a connection that answers, and the other.
func wired(t *testing.T) (*connection, *net.UnixConn) {
	t.Helper()
	theirs, ours := socketPair(t)
	t.Cleanup(func() { theirs.Close(); ours.Close() })
	stream := &watchedStream{Conn: ours, activity: &activity{}}
	return &connection{server: &Server{}, stream: stream, writer: frame.NewWriter(stream)}, theirs
}

func randomFile(t *testing.T, size int) (string, []byte) {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails, says its documentation
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// received is all DATA that somebody sends, up to the end of the stream, which must be that of a frame.
func received(t *testing.T, c *connection, stream io.Reader, send func()) []byte {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		send()
		_ = c.stream.CloseWrite()
	}()
	defer func() { <-done }()
	var data []byte
	for {
		kind, payload, err := frame.Read(stream, dataSize)
		if err == io.EOF {
			return data
		}
		if err != nil || kind != frame.Data || len(payload) == 0 {
			t.Fatalf("frame of type %d and %d bytes: %v", kind, len(payload), err)
		}
		data = append(data, payload...)
	}
}

func TestALargeFileIsPassedOnAsItIsAndASmallOneCopied(t *testing.T) {
	const size = 3*dataSize + 5
	path, content := randomFile(t, size)
	for _, request := range []*agentpb.ReadFileRequest{
		{},
		{Offset: 1},
		{Offset: 4095, MaxBytes: 4097},
		{MaxBytes: 1},
		{MaxBytes: dataSize},
		{MaxBytes: dataSize + 1},
		{MaxBytes: size - 1},
		{MaxBytes: size},
		{MaxBytes: size + 1},
		{Offset: size},
		{Offset: size + 1},
	} {
		c, theirs := wired(t)
		begin := min(int(request.Offset), size)
		end := size
		if request.MaxBytes > 0 {
			end = min(size, begin+int(request.MaxBytes))
		}
		var response *agentpb.ReadFileResponse
		var failed error
		var passed, copied bool
		got := received(t, c, theirs, func() {
			sink := newDataWriter(c)
			response, failed = files.Read(path, request, sink)
			failed = errors.Join(failed, sink.Flush())
			passed, copied = sink.pipeline != nil, sink.buffer != nil
			sink.close()
		})
		if large := end-begin > 64*1024; passed != large || large && copied && request.MaxBytes == 0 {
			t.Errorf("%v: passed on %v, copied %v", request, passed, copied)
		}
		if failed != nil || !bytes.Equal(got, content[begin:end]) {
			t.Errorf("%v: %d bytes, %v", request, len(got), failed)
			continue
		}
		next := max(end, int(request.Offset))
		if response.Truncated != (end < size) || response.NextOffset != uint64(next) {
			t.Errorf("%v: %v", request, response)
		}
	}
}

func TestAFileThatShrinksOnItsWayLeavesFramesWhole(t *testing.T) {
	path, content := randomFile(t, dataSize)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, theirs := wired(t)
	p, err := newPipeline(c.stream, dataSize)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	size, err := p.fill(int(file.Fd()), dataSize)
	if err != nil || size != dataSize {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	got := received(t, c, theirs, func() {
		if err := c.writer.Precede(frame.Data, size, func(ahead []byte) error { return p.drain(ahead, size) }); err != nil {
			t.Error(err)
		}
		if more, err := p.fill(int(file.Fd()), dataSize); more != 0 || err != nil {
			t.Errorf("behind the end: %d bytes, %v", more, err)
		}
	})
	if len(got) != len(content) {
		t.Errorf("%d bytes of %d", len(got), len(content))
	}
}

func TestWhoLeavesAmidAFileGetsNoErrorInIt(t *testing.T) {
	path, _ := randomFile(t, 64*dataSize)
	c, theirs := wired(t)
	go func() {
		_, _, _ = frame.Read(theirs, dataSize)
		theirs.Close()
	}()
	sink := newDataWriter(c)
	defer sink.close()
	_, err := files.Read(path, &agentpb.ReadFileRequest{}, sink)
	var network net.Error
	if !errors.As(err, &network) {
		t.Errorf("%v, which the caller would be told in the middle of a frame", err)
	}
}

func TestAFileWithoutPagesIsRead(t *testing.T) {
	want, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	c, theirs := wired(t)
	got := received(t, c, theirs, func() {
		sink := newDataWriter(c)
		defer sink.close()
		_, err := files.Read("/proc/version", &agentpb.ReadFileRequest{}, sink)
		if err = errors.Join(err, sink.Flush()); err != nil {
			t.Error(err)
		}
	})
	if !bytes.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestWhatPassesIsNotedAsActivity(t *testing.T) {
	path, _ := randomFile(t, dataSize)
	c, theirs := wired(t)
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	c.stream.lively.Store(true)
	sink := newDataWriter(c)
	defer sink.close()
	if _, err := files.Read(path, &agentpb.ReadFileRequest{}, sink); err != nil {
		t.Fatal(err)
	}
	if c.stream.activity.last.Load() == 0 {
		t.Error("not noted")
	}
}
