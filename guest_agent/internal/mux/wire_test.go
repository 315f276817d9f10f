package mux

import (
	"bytes"
	"testing"
)

// FuzzDecoder has the decoder take anything, in pieces of any size: a session that begins behind it is found, and its
// packets are.
func FuzzDecoder(f *testing.F) {
	host, guest := mark{1, 2, 3}, mark{7, 8, 9, 10, 11, 12, 13, 14}
	packet := func(m mark, payload string) []byte {
		out := make([]byte, headerSize)
		putHeader(out, data, 5, len(payload))
		return append(append(out, payload...), m[:]...)
	}
	f.Add([]byte("garbage"), uint16(7))
	f.Add(record(hello, mark{4}, mark{}), uint16(1000))
	f.Add(append(record(hello, mark{4}, mark{}), packet(guest, "of this session")...), uint16(1))
	f.Add(packet(guest, "no session")[:10], uint16(3))
	f.Fuzz(func(t *testing.T, before []byte, piece uint16) {
		stream := append(append(bytes.Clone(before), record(hello, host, mark{})...), packet(guest, "one")...)
		stream = append(stream, packet(mark{}, "of another session")...)
		var d decoder
		var found [][]byte
		begun := false
		for len(stream) > 0 {
			space := d.space()
			size := copy(space[:min(len(space), int(piece)+1)], stream)
			stream = stream[size:]
			d.received(size)
			for more := true; more; {
				p, m, lost, any := d.next()
				more = any || lost
				switch {
				case m != nil:
					begun = *m == host
					d.begin(guest)
				case any && begun:
					found = append(found, bytes.Clone(p.payload))
				}
			}
		}
		if len(found) != 1 || string(found[0]) != "one" {
			t.Fatalf("%q came out", found)
		}
		if d.inSession {
			t.Fatal("a packet of another session did not end this one")
		}
	})
}

// A packet that was cut is completed by what goes before a record, and delivered to nobody.
func TestACutPacketIsNotDelivered(t *testing.T) {
	guest := mark{7, 8, 9, 10, 11, 12, 13, 14}
	whole := make([]byte, maxPacket)
	putHeader(whole, data, 1, maxPayload)
	copy(whole[maxPacket-markSize:], guest[:])
	for _, size := range []int{1, headerSize, headerSize + 1, maxPacket - 1} {
		var d decoder
		d.begin(guest)
		stream := append(bytes.Clone(whole[:size]), record(hello, mark{3}, mark{})...)
		wasLost, begun := false, false
		for len(stream) > 0 {
			part := copy(d.space(), stream)
			stream = stream[part:]
			d.received(part)
			for more := true; more; {
				_, host, lost, found := d.next()
				if found && host == nil {
					t.Fatalf("a packet of which there were %d bytes was delivered", size)
				}
				wasLost, begun, more = wasLost || lost, begun || host != nil, found || lost
			}
		}
		if !wasLost || !begun {
			t.Fatalf("%d bytes of a packet: lost %v, begun %v", size, wasLost, begun)
		}
	}
}
