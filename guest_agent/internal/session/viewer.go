package session

import (
	"os"

	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/display"
)

// Event is what a viewer gets next.
type Event int

// The events. Replay is output that was said before, or a part that the viewer was too slow for; Output follows what
// came last. The others are the last event of a viewer.
const (
	Replay Event = iota
	Output
	Over
	Stolen
	Left
)

// Viewer is whoever looks at a session and types. Its Input is the terminal.
type Viewer struct {
	Input   *os.File
	session *Session

	// The rest is the session's to lock.
	place   int64 // of the next byte to take
	replay  bool  // what comes next doesn't follow what came last
	shown   bool  // it was given something already
	stalled bool  // it took nothing for so long that the session doesn't wait for it
	ending  Event // Stolen or Left, once done is closed
	done    chan struct{}
}

// Session is what it looks at.
func (v *Viewer) Session() *Session { return v.session }

// Done is closed when the viewer was replaced, or has left.
func (v *Viewer) Done() <-chan struct{} { return v.done }

// Next waits for the next event, and copies what is new into the buffer, which must have room for all the scrollback.
func (v *Viewer) Next(buffer []byte) (Event, int) {
	s := v.session
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for {
		for !v.isDone() && v.place == s.output.end && !s.over {
			s.changed.Wait()
		}
		if v.isDone() {
			return v.ending, 0
		}
		if v.place < s.output.start() {
			v.place, v.replay = s.output.start(), true
		}
		if v.place == s.output.end {
			return Over, 0
		}
		event, size := Output, 0
		if v.replay {
			event, size = Replay, v.set(buffer)
		}
		read := s.output.read(v.place, buffer[size:])
		v.place += int64(read)
		v.replay, v.stalled, v.shown = false, false, true
		s.changed.Broadcast()
		if size+read > 0 {
			return event, size + read
		}
	}
}

// set goes to where a replay can begin, and copies what sets the viewer's terminal for it. Where output was lost, what
// is drawn may be as well: then the program shall draw it anew.
func (v *Viewer) set(buffer []byte) int {
	s := v.session
	var setting []byte
	if v.shown {
		setting = display.Renew()
	}
	restored, place := s.output.replay()
	v.place = place
	if shown := s.output.display(); s.output.start() > 0 && (!v.shown || shown.Alternate()) {
		s.redraw()
	}
	return copy(buffer, append(setting, restored...))
}

// Resize sets the size of the terminal, unless somebody else has it now.
func (v *Viewer) Resize(size command.Size) error {
	v.session.mutex.Lock()
	defer v.session.mutex.Unlock()
	if v.session.viewer != v {
		return nil
	}
	return v.session.resize(size)
}

// Typed notes that there was input.
func (v *Viewer) Typed() {
	v.session.mutex.Lock()
	defer v.session.mutex.Unlock()
	v.session.touch()
}

// Leave detaches; one that was replaced or has left already leaves the session alone.
func (v *Viewer) Leave() {
	s := v.session
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.viewer != v {
		return
	}
	v.finish(Left)
	s.viewer = nil
	s.touch()
	if s.limits.EndWithViewer {
		s.terminal.HangUp()
	}
}

// finish ends the viewer. The session is locked.
func (v *Viewer) finish(ending Event) {
	v.ending = ending
	close(v.done)
	v.session.changed.Broadcast()
}

func (v *Viewer) isDone() bool {
	select {
	case <-v.done:
		return true
	default:
		return false
	}
}
