package serve

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeline takes a file's pages to a connection by way of a pipe, which holds them without a copy of them. How many they
// are is known before the frame begins, whatever becomes of the file meanwhile.
type pipeline struct {
	in, out int
	stream  syscall.RawConn
}

// newPipeline makes one to a stream, with room for so many bytes; errors.ErrUnsupported: not to this stream, or not for
// this user.
func newPipeline(stream syscall.Conn, size int) (*pipeline, error) {
	raw, err := stream.SyscallConn()
	if err != nil {
		return nil, errors.ErrUnsupported
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	p := &pipeline{ends[1], ends[0], raw}
	if _, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, size); err != nil {
		p.close()
		return nil, errors.ErrUnsupported
	}
	return p, nil
}

func (p *pipeline) close() {
	_ = unix.Close(p.in)
	_ = unix.Close(p.out)
}

// fill takes at most so many bytes from where the file is read next; 0: it ends there. errors.ErrUnsupported: its file
// system has no pages to give, and nothing was taken.
func (p *pipeline) fill(file, most int) (int, error) {
	filled := 0
	for filled < most {
		size, err := splice(file, p.in, most-filled)
		switch {
		case err == unix.EAGAIN: // the pipe is full
			return filled, nil
		case err == unix.EINVAL && filled == 0:
			return 0, errors.ErrUnsupported
		case err != nil:
			return 0, err
		case size == 0:
			return filled, nil
		}
		filled += size
	}
	return filled, nil
}

// drain sends so many bytes that were filled in, behind others. Errors are *net.OpError: they are the stream's end.
func (p *pipeline) drain(ahead []byte, size int) error {
	var failed error
	err := p.stream.Write(func(fd uintptr) bool {
		for failed = nil; len(ahead) > 0 && failed == nil; {
			var sent int
			sent, failed = unix.SendmsgN(int(fd), ahead, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			ahead = ahead[max(sent, 0):]
		}
		for size > 0 && failed == nil {
			var sent int
			sent, failed = splice(p.out, int(fd), size)
			size -= max(sent, 0)
		}
		return failed != unix.EAGAIN
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return &net.OpError{Op: "splice", Net: "stream", Err: err}
	}
	return nil
}

func splice(from, to, size int) (int, error) {
	for {
		moved, err := unix.Splice(from, nil, to, nil, size, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(moved), err
		}
	}
}
