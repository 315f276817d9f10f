package session

// scrollback is how much of its latest output a session keeps, in bytes: what the protocol promises.
const scrollback = 64 * 1024

// ring holds the end of a stream. Places in the stream are counted in bytes from its beginning.
type ring struct {
	bytes [scrollback]byte
	end   int64 // the place behind the last byte written
}

// start is the place of the oldest byte that is still there.
func (r *ring) start() int64 { return max(0, r.end-scrollback) }

func (r *ring) write(data []byte) {
	if over := len(data) - scrollback; over > 0 {
		data = data[over:]
		r.end += int64(over)
	}
	at := r.end % scrollback
	copied := copy(r.bytes[at:], data)
	copy(r.bytes[:], data[copied:])
	r.end += int64(len(data))
}

// read copies what is at a place between start and end, as much as there is and fits.
func (r *ring) read(place int64, buffer []byte) int {
	size := int(min(int64(len(buffer)), r.end-place))
	copied := copy(buffer[:size], r.bytes[place%scrollback:])
	copy(buffer[copied:size], r.bytes[:])
	return size
}
