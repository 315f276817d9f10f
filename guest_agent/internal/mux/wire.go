// Package mux carries many streams over one character device, a virtio-serial port, that loses nothing and knows of no
// connections: whoever opens it next finds what its predecessor had under way.
//
// proto/ingle/agent/v1/agent.proto has the format. In short: an end that begins sends more zeros than a packet has
// bytes, and then a record that can be told from all else. Zeros complete whatever packet was cut; they are no beginning
// of one; and a packet counts only if it ends with the mark that its receiver chose at random for this session, which
// zeros, an earlier session and what anybody put into a stream can't know.
package mux

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// Kinds of records.
const (
	hello   = 1 // host: a session begins; the mark is what it wants to see
	welcome = 2 // guest: so be it; both marks
	knock   = 3 // guest: an agent has begun, and knows of no session
)

// Types of packets.
const (
	open   = 1 // host: a new stream, and its first bytes
	data   = 2
	end    = 3 // of this direction
	reset  = 4 // of the stream
	credit = 5 // so many bytes more may be sent
)

const (
	markSize    = 8
	recordSize  = 40
	headerSize  = 8
	maxPayload  = 65 * 1024 // a frame of output, with its header
	maxPacket   = headerSize + maxPayload + markSize
	fillerSize  = maxPacket
	creditSize  = 4
	window      = 256 * 1024 // what may be under way in one direction of a stream
	mostStreams = 1024
)

// mark ends a packet.
type mark [markSize]byte

// magic begins a record.
var magic = []byte("\x00ingle mux\xff\x01\r\n\x1a\xfe")

// record is filler, and then what says that a session begins.
func record(kind uint32, host, guest mark) []byte {
	out := make([]byte, fillerSize, fillerSize+recordSize)
	out = append(out, magic...)
	out = binary.BigEndian.AppendUint32(out, kind)
	out = append(append(out, host[:]...), guest[:]...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[fillerSize:]))
}

// packet is one of the host's. The payload is good until the next one is asked for.
type packet struct {
	kind    byte
	stream  uint32
	payload []byte
}

// putHeader writes what goes before a payload.
func putHeader(header []byte, kind byte, stream uint32, size int) {
	binary.BigEndian.PutUint32(header, uint32(kind)<<24|uint32(size))
	binary.BigEndian.PutUint32(header[4:], stream)
}

// decoder takes what comes from the host in pieces of any size: it finds hello records, and in a session packets.
type decoder struct {
	buffer     [2 * maxPacket]byte
	start, end int
	mark       mark
	inSession  bool
}

// space is where the next bytes go; never empty.
func (d *decoder) space() []byte {
	if len(d.buffer)-d.end < maxPacket {
		d.end = copy(d.buffer[:], d.buffer[d.start:d.end])
		d.start = 0
	}
	return d.buffer[d.end:]
}

// received says that so many bytes were put into space.
func (d *decoder) received(size int) { d.end += size }

// begin has packets be expected, that end with a mark, from here on.
func (d *decoder) begin(m mark) { d.mark, d.inSession = m, true }

// next is what comes next. found says that there is something: a packet; or, if host isn't nil, a session's beginning. lost
// says that what came is no packet, and that a beginning is looked for from now on.
func (d *decoder) next() (p packet, host *mark, lost, found bool) {
	if !d.inSession {
		host = d.hunt()
		return packet{}, host, false, host != nil
	}
	rest := d.buffer[d.start:d.end]
	if len(rest) < headerSize {
		return packet{}, nil, false, false
	}
	first := binary.BigEndian.Uint32(rest)
	kind, size := byte(first>>24), int(first&0xffffff)
	if kind < open || kind > credit || size > maxPayload {
		d.inSession = false
		return packet{}, nil, true, false
	}
	if len(rest) < headerSize+size+markSize {
		return packet{}, nil, false, false
	}
	whole := headerSize + size + markSize
	d.start += whole
	if mark(rest[headerSize+size:whole]) != d.mark {
		d.inSession = false
		return packet{}, nil, true, false
	}
	return packet{kind, binary.BigEndian.Uint32(rest[4:]), rest[headerSize : headerSize+size]}, nil, false, true
}

// hunt looks for a hello record, and forgets what is before it.
func (d *decoder) hunt() *mark {
	for {
		rest := d.buffer[d.start:d.end]
		at := bytes.Index(rest, magic)
		if at < 0 {
			d.start += max(0, len(rest)-len(magic)+1)
			return nil
		}
		d.start += at
		rest = rest[at:]
		if len(rest) < recordSize {
			return nil
		}
		sum := binary.BigEndian.Uint32(rest[recordSize-4:])
		if crc32.ChecksumIEEE(rest[:recordSize-4]) != sum || binary.BigEndian.Uint32(rest[len(magic):]) != hello {
			d.start += len(magic)
			continue
		}
		d.start += recordSize
		host := mark(rest[len(magic)+4:])
		return &host
	}
}
