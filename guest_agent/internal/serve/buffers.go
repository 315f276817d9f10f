package serve

import (
	"sync"

	"ingle.dev/guest_agent/internal/frame"
)

// A caller who doesn't read makes us keep a buffer, and there may be hundreds of them. So there are few large buffers,
// with which output moves fastest, and small ones for whoever comes when all of those are held up.
const (
	largeBuffer  = frame.HeaderSize + outputFrame
	smallBuffer  = 4 * 1024
	largeBuffers = 16
)

var (
	largeOnes = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	smallOnes = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	// A token for each large buffer that may be out.
	largeTokens = make(chan struct{}, largeBuffers)
)

// borrowBuffer gives a buffer at once, and how to give it back.
func borrowBuffer() (buffer []byte, giveBack func()) {
	select {
	case largeTokens <- struct{}{}:
		large := largeOnes.Get().(*[largeBuffer]byte)
		return large[:], func() {
			largeOnes.Put(large)
			<-largeTokens
		}
	default:
		small := smallOnes.Get().(*[smallBuffer]byte)
		return small[:], func() { smallOnes.Put(small) }
	}
}
