package session

import "ingle.dev/guest_agent/internal/display"

// scrollback is how much of its latest output a session keeps, in bytes: what the protocol promises.
const scrollback = 64 * 1024

// ring holds the end of a stream. Places in the stream are counted in bytes from its beginning.
type ring struct {
	bytes [scrollback]byte
	end   int64           // the place behind the last byte written
	lost  display.Display // a terminal that was sent all before the start
}

// start is the place of the oldest byte that is still there.
func (r *ring) start() int64 { return max(0, r.end-scrollback) }

func (r *ring) write(data []byte) {
	for len(data) > 0 {
		at := r.end % scrollback
		if r.end >= scrollback {
			r.lost.Write(r.bytes[at:min(scrollback, at+int64(len(data)))])
		}
		copied := copy(r.bytes[at:], data)
		data = data[copied:]
		r.end += int64(copied)
	}
}

// replay answers what sets a new terminal as the first one was at a place, which is the first after the start where no
// character and no sequence has begun.
func (r *ring) replay() (setting []byte, place int64) {
	before := r.lost
	at := r.start() % scrollback
	taken := before.ToBoundary(r.bytes[at:])
	taken += before.ToBoundary(r.bytes[:at])
	return before.Restore(), min(r.end, r.start()+int64(taken))
}

// display is a terminal that was sent everything.
func (r *ring) display() display.Display {
	shown := r.lost
	at := r.start() % scrollback
	shown.Write(r.bytes[at:min(scrollback, r.end)])
	if r.end > scrollback {
		shown.Write(r.bytes[:at])
	}
	return shown
}

// read copies what is at a place between start and end, as much as there is and fits.
func (r *ring) read(place int64, buffer []byte) int {
	size := int(min(int64(len(buffer)), r.end-place))
	copied := copy(buffer[:size], r.bytes[place%scrollback:])
	copy(buffer[copied:size], r.bytes[:])
	return size
}
