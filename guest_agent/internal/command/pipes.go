package command

import (
	"os"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/users"
)

// pipes are the two ends of a command's standard streams. Ours are non-blocking and known to Go's poller, the child's
// are plain: programs are not prepared for EAGAIN.
type pipes struct {
	stdin, stdout, stderr *os.File
	child                 [3]int
}

func openPipes(withStdin bool, owner users.Account) (*pipes, error) {
	p := &pipes{child: [3]int{-1, -1, -1}}
	err := func() (err error) {
		if withStdin {
			p.child[0], p.stdin, err = inputPipe()
		} else {
			p.child[0], err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return err
		}
		if p.child[1], p.stdout, err = outputPipe(); err != nil {
			return err
		}
		if p.child[2], p.stderr, err = outputPipe(); err != nil {
			return err
		}
		return p.giveTo(owner)
	}()
	if err != nil {
		p.closeChildEnds()
		p.closeOurEnds()
		return nil, err
	}
	return p, nil
}

// giveTo lets a command of that user open its streams by name, as /dev/stdout or /proc/self/fd/1.
func (p *pipes) giveTo(owner users.Account) error {
	if os.Geteuid() != 0 {
		return nil // it can only be ourselves
	}
	ends := p.child[1:]
	if p.stdin != nil {
		ends = p.child[:]
	}
	for _, fd := range ends {
		if err := unix.Fchown(fd, int(owner.UID), int(owner.GID)); err != nil {
			return os.NewSyscallError("fchown", err)
		}
	}
	return nil
}

func (p *pipes) closeChildEnds() {
	for _, fd := range p.child {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (p *pipes) closeOurEnds() {
	for _, file := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if file != nil {
			_ = file.Close()
		}
	}
}

func inputPipe() (reader int, writer *os.File, err error) {
	ends, err := pipe()
	if err != nil {
		return -1, nil, err
	}
	return ends[0], os.NewFile(uintptr(ends[1]), "stdin"), waits(ends[0])
}

func outputPipe() (writer int, reader *os.File, err error) {
	ends, err := pipe()
	if err != nil {
		return -1, nil, err
	}
	return ends[1], os.NewFile(uintptr(ends[0]), "output"), waits(ends[1])
}

// pipe makes one of which neither end waits.
func pipe() (ends [2]int, err error) {
	err = os.NewSyscallError("pipe2", unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	return ends, err
}

// waits makes a pipe's end one that does. It has no other flags that could be set.
func waits(end int) error {
	_, err := unix.FcntlInt(uintptr(end), unix.F_SETFL, 0)
	return os.NewSyscallError("fcntl", err)
}
