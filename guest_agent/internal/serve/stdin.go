package serve

import (
	"io"
	"os"
	"sync"
)

const (
	// stdinWindow is how much input a caller may send without a WINDOW frame: what the protocol promises.
	stdinWindow = 256 * 1024
	// grantStep is how much must have been taken before the caller is told: a short input needs no WINDOW at all.
	grantStep = stdinWindow / 4
	// littlePiece is the most that is put together from several frames.
	littlePiece = 4 * 1024
)

// stdinQueue is input on its way to whoever may be slow to read it, or not read it at all.
type stdinQueue struct {
	pipe    io.WriteCloser // nil: the command has no stdin
	mutex   sync.Mutex
	changed *sync.Cond
	pending [][]byte // nearly as they came
	ended   bool
	held    int // bytes received and not granted again
}

func newStdinQueue(pipe *os.File) *stdinQueue {
	if pipe == nil {
		return newInputQueue(nil)
	}
	return newInputQueue(pipe)
}

func newInputQueue(sink io.WriteCloser) *stdinQueue {
	q := &stdinQueue{pipe: sink, ended: sink == nil}
	q.changed = sync.NewCond(&q.mutex)
	return q
}

// push takes what a caller sent, and keeps it. It never waits.
func (q *stdinQueue) push(data []byte) error {
	if q.pipe == nil {
		return badRequest("STDIN for a command that was started without")
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.held += len(data)
	if q.held > stdinWindow {
		return badRequest("%d bytes of STDIN ahead of the window of %d", q.held-stdinWindow, stdinWindow)
	}
	if !q.ended && len(data) > 0 {
		q.keep(data)
		q.changed.Signal()
	}
	return nil
}

// keep adds to what is pending. Little pieces become one: each on its own would cost several times its size.
func (q *stdinQueue) keep(data []byte) {
	if last := len(q.pending) - 1; last >= 0 && len(q.pending[last])+len(data) <= littlePiece {
		q.pending[last] = append(q.pending[last], data...)
		return
	}
	q.pending = append(q.pending, data)
}

// close lets the command see the end of its input, after what is pending.
func (q *stdinQueue) close() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.ended = true
	q.changed.Signal()
}

// abandon ends the queue for a command that has ended, also while a write waits for some other reader of the pipe.
func (q *stdinQueue) abandon() {
	q.close()
	if q.pipe != nil {
		_ = q.pipe.Close()
	}
}

// drain feeds the pipe until the input ends, then closes it. grant is told what the caller may send again: also for
// input the command won't take any more, which goes nowhere.
func (q *stdinQueue) drain(grant func(bytes int)) {
	if q.pipe == nil {
		return
	}
	defer q.pipe.Close()
	taken, broken := 0, false
	for {
		data := q.next()
		if data == nil {
			return
		}
		if !broken {
			_, err := q.pipe.Write(data)
			broken = err != nil
		}
		taken += len(data)
		if taken >= grantStep {
			q.mutex.Lock()
			q.held -= taken
			q.mutex.Unlock()
			grant(taken)
			taken = 0
		}
	}
}

// next waits for input, and answers nil at its end.
func (q *stdinQueue) next() []byte {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for len(q.pending) == 0 {
		if q.ended {
			return nil
		}
		q.changed.Wait()
	}
	data := q.pending[0]
	q.pending[0] = nil
	q.pending = q.pending[1:]
	return data
}
