package serve

import (
	"container/list"
	"net"
	"sync"
)

// mostUnknown is how many callers may be there at once who have not shown the token yet. One who has it shows it with
// the first packet.
const mostUnknown = 256

// callers are those who have not shown the token yet, oldest first: anybody who reaches the port can be one, and each
// costs memory and a descriptor of the guest's.
type callers struct {
	mutex   sync.Mutex
	unknown list.List // of net.Conn
}

// came notes a new caller, and sheds the oldest where there are too many.
func (c *callers) came(stream net.Conn) *list.Element {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.unknown.Len() == mostUnknown {
		oldest := c.unknown.Remove(c.unknown.Front()).(net.Conn)
		_ = oldest.Close() // its conversation notices
	}
	return c.unknown.PushBack(stream)
}

// known says that this one has shown the token, or is gone. Saying it again is fine.
func (c *callers) known(caller *list.Element) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.unknown.Remove(caller)
}
