package frame

import (
	"io"
	"sync"
)

// Writer puts frames on a stream, each whole, whoever else writes at the same time.
type Writer struct {
	mutex  sync.Mutex
	stream io.Writer
	queued []byte
	short  [shortFrames]byte // what is queued at first
}

// shortFrames is the greeting and most answers together.
const shortFrames = 256

// NewWriter makes a Writer on a stream.
func NewWriter(stream io.Writer) *Writer {
	w := &Writer{stream: stream}
	w.queued = w.short[:0]
	return w
}

// Queue keeps a frame back until the next one is written, so that both go out in one packet.
func (w *Writer) Queue(kind Type, payload []byte) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.queue(kind, payload)
}

// Flush writes what was queued.
func (w *Writer) Flush() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.flush()
}

// Write writes a frame.
func (w *Writer) Write(kind Type, payload []byte) error {
	if len(payload) > MaxPayload {
		return TooLargeError{len(payload), MaxPayload}
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.queue(kind, payload)
	return w.flush()
}

// WriteInPlace writes a frame whose payload is preceded by HeaderSize bytes of room: bulk data is not copied again.
func (w *Writer) WriteInPlace(kind Type, buffer []byte) error {
	size := len(buffer) - HeaderSize
	if size > MaxPayload {
		return TooLargeError{size, MaxPayload}
	}
	PutHeader(buffer, kind, size)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if err := w.flush(); err != nil {
		return err
	}
	_, err := w.stream.Write(buffer)
	return err
}

// Precede gives the header of a frame, behind what was queued, to whoever sends that and then so many bytes of payload. An
// error in the middle of a frame is the end of the stream.
func (w *Writer) Precede(kind Type, size int, send func(ahead []byte) error) error {
	if size > MaxPayload {
		return TooLargeError{size, MaxPayload}
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.queue(kind, nil)
	PutHeader(w.queued[len(w.queued)-HeaderSize:], kind, size)
	ahead := w.queued
	w.queued = w.queued[:0]
	return send(ahead)
}

// Compose gives the stream to whoever writes one frame in pieces, beginning with PutHeader, or nothing. An error in the
// middle of a frame is the end of the stream.
func (w *Writer) Compose(write func(stream io.Writer) error) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if err := w.flush(); err != nil {
		return err
	}
	return write(w.stream)
}

func (w *Writer) queue(kind Type, payload []byte) {
	var header [HeaderSize]byte
	PutHeader(header[:], kind, len(payload))
	w.queued = append(append(w.queued, header[:]...), payload...)
}

func (w *Writer) flush() error {
	if len(w.queued) == 0 {
		return nil
	}
	_, err := w.stream.Write(w.queued)
	w.queued = w.queued[:0]
	return err
}
