package layers

import (
	"errors"
	"io"
	"os"
)

// archiveReader reads the headers of an archive, and little else: what is skipped is not read.
type archiveReader struct {
	file   *os.File
	size   int64
	at     int64
	buffer []byte
	held   []byte // of the buffer: what is at `at`
}

// NewReader begins at the beginning of a file.
func NewReader(file *os.File) (io.ReadSeeker, error) {
	const buffered = 32 << 10
	facts, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return &archiveReader{file: file, size: facts.Size(), buffer: make([]byte, buffered)}, nil
}

func (r *archiveReader) Read(into []byte) (int, error) {
	if len(r.held) == 0 {
		count, err := r.file.ReadAt(r.buffer, r.at)
		if count == 0 {
			return 0, err
		}
		r.held = r.buffer[:count]
	}
	count := copy(into, r.held)
	r.held = r.held[count:]
	r.at += int64(count)
	return count, nil
}

// Seek is what archive/tar asks for: relative to here, or to the end.
func (r *archiveReader) Seek(offset int64, whence int) (int64, error) {
	to := offset
	switch whence {
	case io.SeekCurrent:
		to += r.at
	case io.SeekEnd:
		to += r.size
	}
	if to < 0 {
		return r.at, errors.New("before the beginning")
	}
	if ahead := to - r.at; ahead >= 0 && ahead <= int64(len(r.held)) {
		r.held = r.held[ahead:]
	} else {
		r.held = nil
	}
	r.at = to
	return to, nil
}
