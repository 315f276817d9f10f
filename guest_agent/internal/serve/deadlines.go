package serve

import (
	"container/list"
	"os"
	"sync"
	"time"
)

// deadlines are those of whatever is waited for equally long. One timer serves them all: one for each would wake the
// runtime's poller, a thread, with every request.
type deadlines struct {
	mutex   sync.Mutex
	waiting list.List // of waiting, whose time is up first in front
	timer   *time.Timer
}

type waiting struct {
	until time.Time
	over  func()
}

// begin has over called after that time, the same for all, unless it ends before. It must not wait for anything.
func (d *deadlines) begin(limit time.Duration, over func()) *list.Element {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	element := d.waiting.PushBack(waiting{time.Now().Add(limit), over})
	if d.timer == nil {
		d.timer = time.AfterFunc(limit, d.pass)
	}
	return element
}

// end waits no longer for that one. The error is os.ErrDeadlineExceeded when its time was up.
func (d *deadlines) end(element *list.Element) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	before := d.waiting.Len()
	if d.waiting.Remove(element); d.waiting.Len() == before {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// pass tells all whose time is up, and sleeps until it is the next one's.
func (d *deadlines) pass() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	now := time.Now()
	for first := d.waiting.Front(); first != nil; first = d.waiting.Front() {
		next := first.Value.(waiting)
		if left := next.until.Sub(now); left > 0 {
			d.timer.Reset(left)
			return
		}
		next.over()
		d.waiting.Remove(first)
	}
	d.timer = nil
}
