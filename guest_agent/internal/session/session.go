// Package session keeps programs on terminals that outlive whoever looks at them.
//
// A session is read all the time, whether anybody is attached or not, into a ring that keeps its latest output. A viewer
// takes from the ring at its own pace: so replay and live output can't mix, and a viewer that takes nothing can't hold
// anything up for longer than its patience lasts.
package session

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/failure"
)

const (
	// patience is how long a session waits for a viewer that takes no output.
	patience = time.Second
	// outputGrace is how long output is waited for after the program ended while another process holds the terminal.
	outputGrace = 500 * time.Millisecond
	// redrawGrace is how long a program may take to say something after its terminal has changed its size.
	redrawGrace = 500 * time.Millisecond
	// readSize is more than a terminal gives at once.
	readSize = 16 * 1024
)

// Limits say when a session shall be ended though its program goes on.
type Limits struct {
	// IdleTimeout is how long nobody may be attached while nothing is said; 0: for ever.
	IdleTimeout time.Duration
	// EndWithViewer ends the session as soon as its viewer has left.
	EndWithViewer bool
}

// Info is what a list tells of a session.
type Info struct {
	ID       string
	Argv     []string
	Size     command.Size
	Attached bool
	Idle     time.Duration
	Age      time.Duration
}

// Session is a program on a terminal.
type Session struct {
	id       string
	terminal *command.Terminal
	limits   Limits
	began    time.Time
	ended    chan struct{}

	mutex   sync.Mutex
	changed *sync.Cond
	output  ring
	size    command.Size
	viewer  *Viewer
	active  time.Time
	redraws bool // it is being told to
	over    bool
}

// start makes a session of a program that was just started. gone is called when it is over.
func start(id string, terminal *command.Terminal, size command.Size, limits Limits, gone func()) *Session {
	now := time.Now()
	s := &Session{
		id: id, terminal: terminal, limits: limits, size: size, began: now, active: now, ended: make(chan struct{}),
	}
	s.changed = sync.NewCond(&s.mutex)
	drained := make(chan struct{})
	go func() { defer close(drained); s.read() }()
	go func() {
		<-terminal.Done()
		_ = terminal.Slave.Close()
		_ = terminal.Master.SetReadDeadline(time.Now().Add(outputGrace))
		<-drained
		gone()
		s.end()
	}()
	if limits.IdleTimeout > 0 {
		go s.endWhenIdle()
	}
	return s
}

// Info describes the session now.
func (s *Session) Info() Info {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := time.Now()
	return Info{s.id, s.terminal.Argv, s.size, s.viewer != nil, now.Sub(s.active), now.Sub(s.began)}
}

// Resize sets the size of the terminal.
func (s *Session) Resize(size command.Size) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.resize(size)
}

// Kill ends everything in the session, and returns when that is done.
func (s *Session) Kill() {
	s.terminal.HangUp()
	<-s.ended
}

// Attach makes a new viewer the session's one. With steal it takes over from another, who is told.
func (s *Session) Attach(steal bool) (*Viewer, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.over {
		return nil, notFound(s.id)
	}
	if s.viewer != nil && !steal {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_SESSION_ATTACHED, "somebody is attached to session %q", s.id)
	}
	input, err := duplicate(s.terminal.Master)
	if err != nil {
		return nil, err
	}
	if s.viewer != nil {
		s.viewer.finish(Stolen)
	}
	s.viewer = &Viewer{session: s, Input: input, place: s.output.start(), replay: s.output.end > 0, done: make(chan struct{})}
	s.touch()
	return s.viewer, nil
}

// Status tells how the program ended, once the session is over.
func (s *Session) Status() syscall.WaitStatus { return s.terminal.Status() }

// read keeps the latest output, until there will be no more.
func (s *Session) read() {
	buffer := make([]byte, readSize)
	for {
		size, err := s.terminal.Master.Read(buffer)
		if err != nil {
			return // EIO: nobody has the terminal open any more; or the grace is over
		}
		s.mutex.Lock()
		s.awaitViewer(size)
		s.output.write(buffer[:size])
		s.touch()
		s.mutex.Unlock()
	}
}

// awaitViewer waits until so much can be written without a loss for the viewer; not for one that makes no progress.
func (s *Session) awaitViewer(size int) {
	for s.viewer != nil && !s.viewer.stalled && s.output.end+int64(size)-s.viewer.place > scrollback {
		viewer, place := s.viewer, s.viewer.place
		alarm := time.AfterFunc(patience, func() {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			viewer.stalled = viewer.place == place
			s.changed.Broadcast()
		})
		for s.viewer == viewer && !viewer.stalled && viewer.place == place {
			s.changed.Wait()
		}
		alarm.Stop()
	}
}

// touch notes that something happened. The session is locked.
func (s *Session) touch() {
	s.active = time.Now()
	s.changed.Broadcast()
}

func (s *Session) resize(size command.Size) error {
	if s.over {
		return nil
	}
	s.size = size
	return s.terminal.Resize(size)
}

// redraw has the program draw all anew, as it does for a terminal of another size; where the size is what it was, many do
// nothing. So it is another one until they have said something. The session is locked.
func (s *Session) redraw() {
	if s.redraws || s.over {
		return
	}
	other := s.size
	if other.Rows--; other.Rows == 0 {
		other.Rows = 2
	}
	if s.terminal.Resize(other) != nil {
		return
	}
	s.redraws = true
	said := s.output.end
	go func() {
		for deadline := time.Now().Add(redrawGrace); time.Now().Before(deadline); time.Sleep(redrawGrace / 25) {
			s.mutex.Lock()
			over := s.over || s.output.end != said
			s.mutex.Unlock()
			if over {
				break
			}
		}
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.redraws = false
		_ = s.resize(s.size)
	}()
}

func (s *Session) end() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.over = true
	_ = s.terminal.Master.Close()
	close(s.ended)
	s.changed.Broadcast()
}

// endWhenIdle looks again whenever the timeout could have passed.
func (s *Session) endWhenIdle() {
	for {
		s.mutex.Lock()
		rest := s.limits.IdleTimeout - time.Since(s.active)
		attached := s.viewer != nil
		s.mutex.Unlock()
		switch {
		case attached:
			rest = s.limits.IdleTimeout
		case rest <= 0:
			s.terminal.HangUp()
			return
		}
		select {
		case <-s.ended:
			return
		case <-time.After(rest):
		}
	}
}

// duplicate gives a descriptor of its own for the same terminal: closing it ends a write that waits.
func duplicate(file *os.File) (*os.File, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var copied int
	var dupErr error
	err = raw.Control(func(fd uintptr) { copied, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("dup", dupErr)
	}
	return os.NewFile(uintptr(copied), file.Name()), nil
}
