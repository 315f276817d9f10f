package files

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tarBlock = 512
	// maxSegments bounds the map of a sparse file; what lies behind the last one is packed as it reads.
	maxSegments = 10_000
	// sparseMajor is the PAX record that says: a sparse file, in the format that begins with its map.
	sparseMajor = "GNU.sparse.major"
	// sparseSize is our own such record: the size of a file whose content is the same map, and then its data. archive/tar
	// doesn't know it and so doesn't spell out holes, which takes its time when they are large.
	sparseSize = "INGLE.sparse.size"
	// holeSize is what is looked for when holes are made again; file systems have blocks of that size or larger.
	holeSize = 4096
)

var zeros [holeSize]byte

// segment is a part of a file that isn't a hole.
type segment struct{ offset, size int64 }

// segments answers where a file of that size has data; nil when it has no holes worth the name.
func segments(file int, stat *unix.Stat_t) ([]segment, error) {
	if stat.Blocks*512 >= stat.Size {
		return nil, nil
	}
	found := []segment{}
	for end := int64(0); end < stat.Size; {
		begin, err := unix.Seek(file, end, unix.SEEK_DATA)
		if err == unix.ENXIO { // a hole to the end
			break
		}
		if err == unix.EINVAL && end == 0 { // the file system doesn't tell
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if begin >= stat.Size {
			break
		}
		if len(found) == maxSegments-1 {
			end = stat.Size
		} else if end, err = unix.Seek(file, begin, unix.SEEK_HOLE); err != nil {
			return nil, err
		}
		end = min(end, stat.Size)
		found = append(found, segment{begin, end - begin})
	}
	if len(found) == 1 && found[0] == (segment{0, stat.Size}) {
		_, err := unix.Seek(file, 0, unix.SEEK_SET)
		return nil, err
	}
	return found, nil
}

// fillSparse writes what the map in the archive says.
func (u *unpacker) fillSparse(file *os.File, name, size string) error {
	total, err := strconv.ParseInt(size, 10, 64)
	if err != nil || total < 0 {
		return badArchive("%s: a size of %q", name, size)
	}
	content := bufio.NewReaderSize(u.archive, tarBlock)
	parts, err := readSegments(content, total)
	if err != nil {
		return badArchive("%s: the map of a sparse file: %v", name, err)
	}
	if err := file.Truncate(total); err != nil {
		return err
	}
	for _, part := range parts {
		sink := struct{ io.Writer }{io.NewOffsetWriter(file, part.offset)}
		copied, err := io.CopyBuffer(sink, io.LimitReader(content, part.size), u.buffer)
		if err != nil {
			return err
		}
		if copied < part.size {
			return badArchive("%s: a sparse file with less data than its map says", name)
		}
	}
	u.copied.Bytes += uint64(total)
	return nil
}

// readSegments reads a map: how many segments there are, offset and size of each, in order, one number a line; padded.
func readSegments(content *bufio.Reader, total int64) ([]segment, error) {
	consumed := 0
	number := func() (int64, error) {
		line, err := content.ReadSlice('\n')
		consumed += len(line)
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(string(line[:len(line)-1]), 10, 64)
	}
	count, err := number()
	if err != nil {
		return nil, err
	}
	if count < 0 || count > maxSegments {
		return nil, fmt.Errorf("%d parts; at most %d are allowed", count, maxSegments)
	}
	parts := make([]segment, count)
	end := int64(0)
	for index := range parts {
		part := &parts[index]
		if part.offset, err = number(); err != nil {
			return nil, err
		}
		if part.size, err = number(); err != nil {
			return nil, err
		}
		if part.offset < end || part.size < 0 || part.size > total-part.offset {
			return nil, fmt.Errorf("%d bytes at %d, behind %d, of %d", part.size, part.offset, end, total)
		}
		end = part.offset + part.size
	}
	_, err = content.Discard(-consumed & (tarBlock - 1))
	return parts, err
}

// addSparse packs a file with holes in GNU tar's format 1.0: a PAX header that says so, then a file whose content is the
// map and the segments. archive/tar reads this format and doesn't write it.
func (p *packer) addSparse(file *os.File, header *tar.Header, parts []segment, size int64) error {
	var table bytes.Buffer
	fmt.Fprintf(&table, "%d\n", len(parts)+1)
	stored := int64(0)
	for _, part := range parts {
		fmt.Fprintf(&table, "%d\n%d\n", part.offset, part.size)
		stored += part.size
	}
	fmt.Fprintf(&table, "%d\n0\n", size) // GNU tar ends the map so; a hole at the end is one then
	pad(&table)
	stored += int64(table.Len())

	records := map[string]string{
		"GNU.sparse.major":    "1",
		"GNU.sparse.minor":    "0",
		"GNU.sparse.name":     header.Name,
		"GNU.sparse.realsize": strconv.FormatInt(size, 10),
		"mtime":               decimalTime(header.ModTime),
		"uid":                 strconv.Itoa(header.Uid),
		"gid":                 strconv.Itoa(header.Gid),
	}
	maps.Copy(records, header.PAXRecords)
	if err := p.archive.Flush(); err != nil {
		return err
	}
	if err := writeExtendedHeader(p.sink, records); err != nil {
		return err
	}
	// The header behind ours must have none of its own: USTAR, or GNU where a number doesn't fit. Ours go over it.
	plain := tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/file", Mode: header.Mode,
		Size: stored}
	if stored >= 8<<30 {
		plain.Format = tar.FormatGNU
	}
	if err := p.begin(&plain); err != nil {
		return err
	}
	p.copied.Bytes += uint64(size)
	if _, err := p.archive.Write(table.Bytes()); err != nil {
		return err
	}
	for _, part := range parts {
		if err := p.content(io.NewSectionReader(file, part.offset, part.size), part.size, file.Name()); err != nil {
			return err
		}
	}
	return nil
}

// writeExtendedHeader writes a PAX header for the entry that follows.
func writeExtendedHeader(sink io.Writer, records map[string]string) error {
	var body, block bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(records)) {
		body.WriteString(record(key, records[key]))
	}
	header := make([]byte, tarBlock) // pax(1), "ustar Interchange Format"
	copy(header, "PaxHeaders.0/file")
	copy(header[100:], "0000644\x000000000\x000000000\x00")
	copy(header[124:], fmt.Sprintf("%011o\x00%011o\x00        x", body.Len(), 0))
	copy(header[257:], "ustar\x0000")
	sum := 0
	for _, value := range header {
		sum += int(value)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	block.Write(header)
	pad(&body)
	block.Write(body.Bytes())
	_, err := sink.Write(block.Bytes())
	return err
}

// record is "LENGTH KEY=VALUE\n", in which the length counts itself.
func record(key, value string) string {
	size := len(key) + len(value) + len(" =\n")
	size += len(strconv.Itoa(size))
	text := fmt.Sprintf("%d %s=%s\n", size, key, value)
	if len(text) != size { // the length has become longer by what it counts
		text = fmt.Sprintf("%d %s=%s\n", len(text), key, value)
	}
	return text
}

func decimalTime(when time.Time) string {
	nanoseconds, sign := when.UnixNano(), ""
	if nanoseconds < 0 {
		nanoseconds, sign = -nanoseconds, "-"
	}
	return fmt.Sprintf("%s%d.%09d", sign, nanoseconds/1e9, nanoseconds%1e9)
}

func pad(buffer *bytes.Buffer) {
	buffer.Write(make([]byte, -buffer.Len()&(tarBlock-1)))
}

// holeMaker writes a file, which has its size already, and leaves out what is zero.
type holeMaker struct {
	file     *os.File
	position int64
}

func (h *holeMaker) Write(data []byte) (int, error) {
	for done := 0; done < len(data); {
		size, hole := h.run(data[done:])
		if !hole {
			if _, err := h.file.WriteAt(data[done:done+size], h.position); err != nil {
				return done, err
			}
		}
		done += size
		h.position += int64(size)
	}
	return len(data), nil
}

// run answers how many bytes, in blocks of the file, are all zero, or not.
func (h *holeMaker) run(data []byte) (end int, hole bool) {
	for end < len(data) {
		size := min(holeSize-int((h.position+int64(end))%holeSize), len(data)-end)
		zero := bytes.Equal(data[end:end+size], zeros[:size])
		if end > 0 && zero != hole {
			break
		}
		end, hole = end+size, zero
	}
	return end, hole
}
