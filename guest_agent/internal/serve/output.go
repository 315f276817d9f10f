package serve

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/frame"
)

// outputChunk is the size of a pipe, so one read can empty it; see pipe(7).
const outputChunk = 64 * 1024

var outputBuffers = sync.Pool{New: func() any { return new([frame.HeaderSize + outputChunk]byte) }}

// pump sends all of a command's output as frames, and closes the pipe. A slow caller slows the command. When the pipe's
// read deadline passes, what is in it at that moment still goes out.
func pump(pipe *os.File, writer *frame.Writer, kind frame.Type) {
	defer pipe.Close()
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := forward(raw.Read, writer, kind)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = forward(once(raw.Control), writer, kind)
		}
		if err != nil {
			return
		}
	}
}

// forward reads once and writes a frame. The buffer is borrowed when there is something to read and not before: a
// hundred silent commands hold none.
func forward(ready func(func(fd uintptr) bool) error, writer *frame.Writer, kind frame.Type) error {
	var buffer *[frame.HeaderSize + outputChunk]byte
	var size int
	var readErr error
	err := ready(func(fd uintptr) bool {
		buffer = outputBuffers.Get().(*[frame.HeaderSize + outputChunk]byte)
		for {
			size, readErr = unix.Read(int(fd), buffer[frame.HeaderSize:])
			if readErr != unix.EINTR {
				break
			}
		}
		if readErr == unix.EAGAIN {
			outputBuffers.Put(buffer)
			buffer = nil
			return false
		}
		return true
	})
	if buffer == nil {
		return err
	}
	defer outputBuffers.Put(buffer)
	if readErr != nil {
		return readErr
	}
	if size == 0 {
		return io.EOF
	}
	return writer.WriteInPlace(kind, buffer[:frame.HeaderSize+size])
}

// once makes a single try of what waits otherwise.
func once(control func(func(fd uintptr)) error) func(func(fd uintptr) bool) error {
	return func(try func(fd uintptr) bool) error {
		return control(func(fd uintptr) { try(fd) })
	}
}
