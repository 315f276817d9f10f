package serve

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/frame"
)

// outputFrame is the most of one frame, the size of a pipe, see pipe(7): callers pay by the frame.
const outputFrame = 64 * 1024

// pump sends all of a command's output as frames, and closes the pipe. A slow caller slows the command. When the pipe's
// read deadline passes, what is in it at that moment still goes out; cut says that somebody may write more.
func pump(pipe *os.File, writer *frame.Writer, kind frame.Type) (cut bool) {
	defer pipe.Close()
	raw, err := pipe.SyscallConn()
	if err != nil {
		return false
	}
	for err == nil {
		err = forward(raw, writer, kind)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		if err = forwardNow(int(fd), writer, kind); err == nil {
			err = forwardNow(int(fd), writer, kind)
		}
	})
	return err != io.EOF
}

// forward waits until a pipe or socket says something, and sends it as a frame; io.EOF at the end.
func forward(source syscall.RawConn, writer *frame.Writer, kind frame.Type) error {
	var failed error
	err := source.Read(func(fd uintptr) bool {
		failed = forwardNow(int(fd), writer, kind)
		return failed != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return failed
}

// forwardNow sends what is there, at most one frame of it; EAGAIN when there is nothing. The buffer is borrowed once the
// caller can be written to and something may be there: who waits for either holds none.
func forwardNow(source int, writer *frame.Writer, kind frame.Type) error {
	return writer.Compose(func(stream io.Writer) error {
		buffer, giveBack := borrowBuffer(outputFrame)
		defer giveBack()
		size, err := readSome(source, buffer[frame.HeaderSize:])
		if err != nil {
			return err
		}
		rest := 0
		if size == len(buffer)-frame.HeaderSize {
			if rest, err = unix.IoctlGetInt(source, unix.TIOCINQ); err != nil {
				return err
			}
			rest = min(rest, outputFrame-size)
		}
		frame.PutHeader(buffer, kind, size+rest)
		if _, err := stream.Write(buffer[:frame.HeaderSize+size]); err != nil {
			return err
		}
		for rest > 0 {
			// It is all there, and nobody else reads it.
			if size, err = readSome(source, buffer[:min(rest, len(buffer))]); err != nil {
				return err
			}
			if _, err := stream.Write(buffer[:size]); err != nil {
				return err
			}
			rest -= size
		}
		return nil
	})
}

// readSome reads without waiting.
func readSome(fd int, buffer []byte) (int, error) {
	for {
		size, err := unix.Read(fd, buffer)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case size == 0:
			return 0, io.EOF
		default:
			return size, nil
		}
	}
}
