package serve

import (
	"net"
	"testing"
)

// end is a stream that knows whether it was closed.
type end struct {
	net.Conn
	closed bool
}

func (e *end) Close() error {
	e.closed = true
	return nil
}

func right() bool { return true }

func TestWhoIsAdmittedIsEndedWithTheTokenAndNobodyElse(t *testing.T) {
	var all callers
	streams := []*end{{}, {}, {}, {}}
	var came []*caller
	for _, stream := range streams {
		came = append(came, all.came(stream))
	}
	for _, one := range came[:3] {
		if !all.admit(one, right) {
			t.Fatal("who is right is not admitted")
		}
	}
	if all.admit(came[3], func() bool { return false }) {
		t.Fatal("who is wrong is admitted")
	}
	all.gone(came[2])
	told := 0
	if !all.endOthers(came[0], func() { told++ }) || told != 1 {
		t.Errorf("told %d times", told)
	}
	for index, want := range []bool{false, true, false, false} {
		if streams[index].closed != want {
			t.Errorf("caller %d: closed %v", index, streams[index].closed)
		}
	}
	if all.endOthers(came[1], func() { told++ }) || all.admit(came[1], right) || told != 1 {
		t.Error("who was ended goes on")
	}
	all.gone(came[0])
	all.gone(came[0])
	if all.known.Len() != 0 || all.unknown.Len() != 1 {
		t.Errorf("%d known, %d unknown ones are left", all.known.Len(), all.unknown.Len())
	}
}

func TestTheOldestOfTooManyStrangersIsShed(t *testing.T) {
	var all callers
	first, known := &end{}, &end{}
	all.admit(all.came(known), right)
	shed := all.came(first)
	for range mostUnknown {
		all.came(&end{})
	}
	if !first.closed || known.closed || all.unknown.Len() != mostUnknown {
		t.Errorf("closed: the oldest %v, a known one %v; %d are left", first.closed, known.closed, all.unknown.Len())
	}
	if all.admit(shed, right) {
		t.Error("who was shed is admitted")
	}
}
