package serve

import (
	"sync"

	"ingle.dev/guest_agent/internal/frame"
)

// dataAlignment is that of the payload in a buffer. Where the header came first and the payload five bytes behind,
// processors were seen to take four times as long to copy pages there.
const dataAlignment = 64

// A caller who doesn't read makes us keep a buffer, and there may be hundreds of them. So there are few large buffers,
// with which output moves fastest, and small ones for whoever comes when all of those are held up, or needs no more.
const (
	largeBuffer  = dataAlignment + outputFrame
	smallBuffer  = 4 * 1024
	largeBuffers = 16

	// smallPayload is what a small buffer holds.
	smallPayload = smallBuffer - dataAlignment
)

var (
	largeOnes = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	smallOnes = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	// A token for each large buffer that may be out.
	largeTokens = make(chan struct{}, largeBuffers)
)

// borrowBuffer gives a buffer at once, and how to give it back: one for so many bytes if it can, which follow the room for
// a header.
func borrowBuffer(expected int) (buffer []byte, giveBack func()) {
	if expected > smallPayload {
		select {
		case largeTokens <- struct{}{}:
			large := largeOnes.Get().(*[largeBuffer]byte)
			return aligned(large[:]), func() {
				largeOnes.Put(large)
				<-largeTokens
			}
		default:
		}
	}
	small := smallOnes.Get().(*[smallBuffer]byte)
	return aligned(small[:]), func() { smallOnes.Put(small) }
}

// aligned leaves out the beginning of a buffer, so that what follows the header begins where it is copied fast.
func aligned(buffer []byte) []byte { return buffer[dataAlignment-frame.HeaderSize:] }
