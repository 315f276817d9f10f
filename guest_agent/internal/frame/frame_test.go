package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/iotest"
)

func encoded(t *testing.T, kind Type, payload []byte) []byte {
	t.Helper()
	var stream bytes.Buffer
	if err := NewWriter(&stream).Write(kind, payload); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, size := range []int{0, 1, 4096, MaxPayload} {
		payload := bytes.Repeat([]byte{0xA5}, size)
		kind, got, err := Read(bytes.NewReader(encoded(t, Stdout, payload)), MaxPayload)
		if err != nil || kind != Stdout || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: type %d, %d bytes, %v", size, kind, len(got), err)
		}
	}
}

func TestAStreamMayComeByteByByte(t *testing.T) {
	stream := append(encoded(t, Stdin, []byte("one")), encoded(t, StdinEOF, nil)...)
	reader := iotest.OneByteReader(bytes.NewReader(stream))
	if kind, payload, err := Read(reader, MaxPayload); err != nil || kind != Stdin || string(payload) != "one" {
		t.Errorf("first frame: %d %q %v", kind, payload, err)
	}
	if kind, payload, err := Read(reader, MaxPayload); err != nil || kind != StdinEOF || len(payload) != 0 {
		t.Errorf("second frame: %d %q %v", kind, payload, err)
	}
	if _, _, err := Read(reader, MaxPayload); err != io.EOF {
		t.Errorf("end: %v", err)
	}
}

func TestAnEndWithinAFrameIsNoEnd(t *testing.T) {
	whole := encoded(t, Hello, []byte("hello"))
	for size := 1; size < len(whole); size++ {
		if _, _, err := Read(bytes.NewReader(whole[:size]), MaxPayload); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes of %d: %v", size, len(whole), err)
		}
	}
}

func TestZeroLengthIsRefused(t *testing.T) {
	if _, _, err := Read(bytes.NewReader(make([]byte, 8)), MaxPayload); err != ErrEmpty {
		t.Error(err)
	}
}

func TestAPayloadOverTheLimitIsRefusedByItsHeaderAlone(t *testing.T) {
	for _, limit := range []int{10, MaxPayload} {
		header := binary.BigEndian.AppendUint32(nil, uint32(limit)+2)
		_, _, err := Read(bytes.NewReader(header), limit)
		if want := (TooLargeError{limit + 1, limit}); err != want {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestAPayloadOverTheLimitIsNotWritten(t *testing.T) {
	var stream bytes.Buffer
	writer := NewWriter(&stream)
	var tooLarge TooLargeError
	if err := writer.Write(Stdout, make([]byte, MaxPayload+1)); !errors.As(err, &tooLarge) {
		t.Error(err)
	}
	if err := writer.WriteInPlace(Stdout, make([]byte, HeaderSize+MaxPayload+1)); !errors.As(err, &tooLarge) {
		t.Error(err)
	}
	never := func([]byte) error { t.Error("a header was given"); return nil }
	if err := writer.Precede(Data, MaxPayload+1, never); !errors.As(err, &tooLarge) {
		t.Error(err)
	}
	if stream.Len() != 0 {
		t.Errorf("%d bytes were written", stream.Len())
	}
}

func TestAQueuedFrameGoesOutWithTheNextOne(t *testing.T) {
	writes := &countingWriter{}
	writer := NewWriter(writes)
	writer.Queue(HelloOk, []byte("welcome"))
	if writes.count != 0 {
		t.Error("written at once")
	}
	buffer := append(make([]byte, HeaderSize), "output"...)
	if err := errors.Join(writer.Write(Started, nil), writer.WriteInPlace(Stdout, buffer)); err != nil {
		t.Fatal(err)
	}
	if writes.count != 2 {
		t.Errorf("%d writes for three frames, two of them together", writes.count)
	}
	for _, want := range []Type{HelloOk, Started, Stdout} {
		if kind, _, err := Read(&writes.Buffer, MaxPayload); err != nil || kind != want {
			t.Errorf("frame %d, wanted %d: %v", kind, want, err)
		}
	}
}

func TestWhatWasQueuedGoesAheadOfAFrameThatIsSentOtherwise(t *testing.T) {
	var stream bytes.Buffer
	writer := NewWriter(&stream)
	writer.Queue(HelloOk, []byte("welcome"))
	err := writer.Precede(Data, 4, func(ahead []byte) error { _, err := stream.Write(append(ahead, "data"...)); return err })
	if err := errors.Join(err, writer.Write(Response, nil)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Type{HelloOk, Data, Response} {
		if kind, _, err := Read(&stream, MaxPayload); err != nil || kind != want {
			t.Errorf("frame %d, wanted %d: %v", kind, want, err)
		}
	}
}

type countingWriter struct {
	bytes.Buffer
	count int
}

func (w *countingWriter) Write(data []byte) (int, error) {
	w.count++
	return w.Buffer.Write(data)
}

func TestTwoWritersNeverMixTheirFrames(t *testing.T) {
	const each = 1000
	ours, theirs := net.Pipe()
	writer := NewWriter(ours)
	var writers sync.WaitGroup
	for _, kind := range []Type{Stdout, Stderr} {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for n := range each {
				buffer := append(make([]byte, HeaderSize), bytes.Repeat([]byte{byte(kind)}, n)...)
				if err := writer.WriteInPlace(kind, buffer); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	go func() { writers.Wait(); ours.Close() }()
	next := map[Type]int{}
	for {
		kind, payload, err := Read(theirs, MaxPayload)
		if err == io.EOF {
			break
		}
		if err != nil || !bytes.Equal(payload, bytes.Repeat([]byte{byte(kind)}, next[kind])) {
			t.Fatalf("frame %d of type %d: %v", next[kind], kind, err)
		}
		next[kind]++
	}
	if next[Stdout] != each || next[Stderr] != each {
		t.Errorf("got %v", next)
	}
}

const benchmarkSize = 64 * 1024

// BenchmarkCopy is what nothing that handles bytes can be faster than.
func BenchmarkCopy(b *testing.B) {
	from, to := make([]byte, benchmarkSize), make([]byte, benchmarkSize)
	b.SetBytes(benchmarkSize)
	for b.Loop() {
		copy(to, from)
	}
}

func BenchmarkWrite(b *testing.B) {
	writer, buffer := NewWriter(io.Discard), make([]byte, HeaderSize+benchmarkSize)
	b.SetBytes(benchmarkSize)
	for b.Loop() {
		if err := writer.WriteInPlace(Stdout, buffer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	var stream bytes.Buffer
	if err := NewWriter(&stream).Write(Stdin, make([]byte, benchmarkSize)); err != nil {
		b.Fatal(err)
	}
	reader := bytes.NewReader(stream.Bytes())
	b.SetBytes(benchmarkSize)
	for b.Loop() {
		reader.Reset(stream.Bytes())
		if _, _, err := Read(reader, MaxPayload); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRead: whatever comes, frames are taken as they were sent, up to the first byte that can't be right. Where to start
// from is in testdata/fuzz/FuzzRead.
func FuzzRead(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream []byte) {
		const limit = 64
		reader := bytes.NewReader(stream)
		var again bytes.Buffer
		writer := NewWriter(&again)
		for {
			kind, payload, err := Read(reader, limit)
			if err != nil {
				rest := stream[again.Len():]
				if err == io.EOF && len(rest) != 0 {
					t.Fatalf("%d bytes are left at the end", len(rest))
				}
				break
			}
			if len(payload) > limit {
				t.Fatalf("%d bytes of payload", len(payload))
			}
			if err := writer.Write(kind, payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(stream, again.Bytes()) {
			t.Fatal("the frames are not what was sent")
		}
	})
}
