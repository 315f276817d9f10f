package serve

import (
	"container/list"
	"net"
	"sync"
)

// mostUnknown is how many callers may be there at once who have not shown the token yet. One who has it shows it with
// the first packet.
const mostUnknown = 256

// callers are all there are. Anybody who reaches the port can be one, and each costs memory and a descriptor of the
// guest's: so those who have not shown the token are bounded.
type callers struct {
	mutex   sync.Mutex
	unknown list.List // of *caller, oldest first
	known   list.List // of *caller
}

// caller is one of them.
type caller struct {
	stream net.Conn
	among  *list.List // nil: none of them any more
	place  *list.Element
}

// came notes a new caller, and sheds the oldest unknown one where there are too many.
func (c *callers) came(stream net.Conn) *caller {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.unknown.Len() == mostUnknown {
		c.end(c.unknown.Front().Value.(*caller))
	}
	arrived := &caller{stream: stream}
	arrived.join(&c.unknown)
	return arrived
}

// admit makes one who is right a known caller, and answers whether that came true. Who is right doesn't change meanwhile.
func (c *callers) admit(one *caller, right func() bool) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if one.among == nil || !right() {
		return false
	}
	one.leave()
	one.join(&c.known)
	return true
}

// gone says that this one is. Saying it again is fine.
func (c *callers) gone(one *caller) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	one.leave()
}

// endOthers ends all known callers but one, and has something done before the next one is known. It answers false, and
// does neither, when that one was ended itself.
func (c *callers) endOthers(spared *caller, then func()) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if spared.among != &c.known {
		return false
	}
	then()
	for place := c.known.Front(); place != nil; {
		one := place.Value.(*caller)
		place = place.Next()
		if one != spared {
			c.end(one)
		}
	}
	return true
}

// change has something done which decides who is right.
func (c *callers) change(what func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	what()
}

// end closes a caller's stream, which its conversation notices.
func (c *callers) end(one *caller) {
	one.leave()
	_ = one.stream.Close()
}

func (c *caller) join(among *list.List) { c.among, c.place = among, among.PushBack(c) }

func (c *caller) leave() {
	if c.among != nil {
		c.among.Remove(c.place)
		c.among = nil
	}
}
