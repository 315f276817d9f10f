// Package frame cuts a byte stream into frames and puts them back together.
//
// A frame is a big-endian u32 length (1 + payload), a type, and at most 1 MiB of payload. What the payload means is
// none of this package's business; proto/ingle/agent/v1/agent.proto has the table.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Type says what a frame's payload is.
type Type uint8

// The frame types of proto/ingle/agent/v1/agent.proto.
const (
	Hello      Type = 1
	HelloOk    Type = 2
	Error      Type = 3
	Request    Type = 4
	Response   Type = 5
	Started    Type = 6
	Exited     Type = 7
	Signal     Type = 8
	Window     Type = 9
	Attached   Type = 10
	Resize     Type = 11
	Detached   Type = 12
	Scrollback Type = 13
	Stdin      Type = 16
	StdinEOF   Type = 17
	Stdout     Type = 18
	Stderr     Type = 19
	Data       Type = 20
	DataEnd    Type = 21
	Entries    Type = 22
	Connected  Type = 24
)

const (
	// MaxPayload is the largest payload of a frame, in bytes.
	MaxPayload = 1 << 20
	// HeaderSize is the number of bytes before the payload.
	HeaderSize = 5
)

// ErrEmpty reports a length of zero: not even a type.
var ErrEmpty = errors.New("frame of length 0")

// TooLargeError reports a payload over the limit.
type TooLargeError struct{ Size, Limit int }

func (e TooLargeError) Error() string {
	return fmt.Sprintf("frame of %d bytes of payload, at most %d are allowed", e.Size, e.Limit)
}

// Read takes the next frame from a stream. The payload, of at most limit bytes, is the caller's to keep.
//
// It returns io.EOF only at the end of a frame; an end within one is io.ErrUnexpectedEOF.
func Read(stream io.Reader, limit int) (Type, []byte, error) {
	kind, size, err := Next(stream, limit)
	if err != nil {
		return 0, nil, err
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(stream, payload); err != nil {
		return 0, nil, within(err)
	}
	return kind, payload, nil
}

// Next takes the header of the next frame from a stream, and answers how many bytes of payload come behind it. Errors are
// those of Read.
func Next(stream io.Reader, limit int) (Type, int, error) {
	var header [HeaderSize]byte
	if _, err := io.ReadFull(stream, header[:4]); err != nil {
		return 0, 0, err
	}
	length := binary.BigEndian.Uint32(header[:4])
	if length == 0 {
		return 0, 0, ErrEmpty
	}
	size := int(length - 1)
	if size > limit {
		return 0, 0, TooLargeError{size, limit}
	}
	if _, err := io.ReadFull(stream, header[4:]); err != nil {
		return 0, 0, within(err)
	}
	return Type(header[4]), size, nil
}

// within is what an error means in the middle of a frame.
func within(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// PutHeader writes the header of a frame with size bytes of payload.
func PutHeader(header []byte, kind Type, size int) {
	binary.BigEndian.PutUint32(header, uint32(size)+1)
	header[4] = byte(kind)
}
