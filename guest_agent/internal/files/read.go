package files

import (
	"bytes"
	"errors"
	"io"
	"math"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

const (
	// chunk is how much is read and written at a time.
	chunk = 256 * 1024
	// leastPassed is how much of a file is passed on rather than copied. The pipe that takes pages past us costs more
	// than a copy of a few.
	leastPassed = 64 * 1024
)

// Sink takes what is read without another copy of it.
type Sink interface {
	// Room is where the next bytes go, of which there are about so many; never empty.
	Room(expected int) []byte
	// Filled takes so many bytes that were put into the Room.
	Filled(size int) error
	// Pass takes at most so many bytes from where the file is read next, without anybody's looking at them, and answers
	// how many; 0: the file ends there. errors.ErrUnsupported: that can't be, and none were taken.
	Pass(file, most int) (int, error)
}

// Read sends a regular file's content to the sink, from the offset to the end or one of the limits.
func Read(path string, request *agentpb.ReadFileRequest, sink Sink) (*agentpb.ReadFileResponse, error) {
	response, err := read(path, request, sink)
	return response, explain(err, path)
}

func read(path string, request *agentpb.ReadFileRequest, sink Sink) (*agentpb.ReadFileResponse, error) {
	// Without O_NONBLOCK, opening a pipe waits for its writer. An os.File would be offered to the runtime's poller.
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(file)
	info, err := ofRegular(file, path)
	if err != nil {
		return nil, err
	}
	position := int64(request.Offset)
	if position < 0 {
		return nil, badRequest("offset %d is beyond any file", request.Offset)
	}
	if position > 0 {
		if _, err := unix.Seek(file, position, io.SeekStart); err != nil {
			return nil, err
		}
	}
	limits := limits{bytes: request.MaxBytes, lines: request.MaxLines}
	expected := max(0, int64(info.SizeBytes)-position)
	if limits.bytes > 0 {
		expected = int64(min(uint64(expected), limits.bytes))
	}
	isPassed := expected > leastPassed
	for unseen := limits.unseen(); isPassed && unseen > 0; unseen = limits.unseen() {
		size, err := sink.Pass(file, unseen)
		if errors.Is(err, errors.ErrUnsupported) {
			break
		}
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return &agentpb.ReadFileResponse{File: info, NextOffset: uint64(position)}, nil
		}
		limits.sentBytes += uint64(size)
		position += int64(size)
		expected = max(0, expected-int64(size))
	}
	for {
		buffer := sink.Room(int(expected))
		size, err := readFrom(file, buffer)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return &agentpb.ReadFileResponse{File: info, NextOffset: uint64(position)}, nil
		}
		allowed := limits.take(buffer[:size])
		if err := sink.Filled(allowed); err != nil {
			return nil, err
		}
		position += int64(allowed)
		if allowed < size {
			return &agentpb.ReadFileResponse{File: info, NextOffset: uint64(position), Truncated: true}, nil
		}
	}
}

// readFrom reads what comes next of a file; 0: it ends there.
func readFrom(file int, buffer []byte) (int, error) {
	for {
		size, err := unix.Read(file, buffer)
		if err != unix.EINTR {
			return size, err
		}
	}
}

// ofRegular describes an open file, and refuses all but a regular one.
func ofRegular(file int, path string) (*agentpb.FileInfo, error) {
	info, err := describe(file, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, err
	}
	info.Name, info.RawName = utf8Only(filepath.Base(path))
	switch info.Type {
	case agentpb.FileType_FILE_TYPE_REGULAR:
		return info, nil
	case agentpb.FileType_FILE_TYPE_DIRECTORY:
		return nil, unix.EISDIR
	}
	return nil, notRegular(path)
}

// limits are how much may still be sent; 0 at first: any amount.
type limits struct {
	bytes, lines       uint64
	sentBytes, sentEnd uint64
}

// unseen is how much may be sent without a look at it.
func (l *limits) unseen() int {
	switch {
	case l.lines > 0:
		return 0
	case l.bytes > 0:
		return int(min(l.bytes-l.sentBytes, math.MaxInt))
	}
	return math.MaxInt
}

// take answers how much of the data is within the limits. Less than all of it: there is more than they allow.
func (l *limits) take(data []byte) int {
	allowed := len(data)
	if l.bytes > 0 {
		allowed = int(min(uint64(allowed), l.bytes-l.sentBytes))
	}
	if l.lines > 0 {
		within := 0
		for within < allowed && l.sentEnd < l.lines {
			end := bytes.IndexByte(data[within:allowed], '\n')
			if end < 0 {
				within = allowed
				break
			}
			within += end + 1
			l.sentEnd++
		}
		allowed = within
	}
	l.sentBytes += uint64(allowed)
	return allowed
}
