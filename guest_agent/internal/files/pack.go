package files

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// Copied counts what went into or out of an archive.
type Copied struct {
	Entries uint64
	// Of file content.
	Bytes uint64
	// AttributesLeftOut are extended attributes for which there was no room, or no right.
	AttributesLeftOut uint64
}

// Pack writes a file, or a directory with all that is in it, as a tar archive whose names begin with the last component
// of the path; or with contents what is in a directory, with names that begin with "./". Sockets are left out; what is
// mounted below the path is an empty directory.
//
// Everything is in PAX format, for times to the nanosecond and names of any bytes.
func Pack(path string, contents bool, sink io.Writer) (Copied, error) {
	parent, name := filepath.Dir(path), filepath.Base(path)
	if path == "/" || contents {
		parent, name = path, "."
	}
	directory, err := unix.Open(parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Copied{}, explain(err, parent)
	}
	defer unix.Close(directory)
	p := &packer{
		sink: sink, archive: tar.NewWriter(sink), seen: map[inode]string{},
		buffer: make([]byte, chunk), begun: make([]byte, chunk),
	}
	var top unix.Stat_t
	if err := unix.Fstatat(directory, name, &top, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Copied{}, explain(err, path)
	}
	p.device = top.Dev
	if err := p.add(directory, name, name, path); err != nil {
		return Copied{}, err
	}
	return p.copied, p.archive.Close()
}

// mostUntold is how much of a file is kept in memory to learn its size.
const mostUntold = 16 << 20

type inode struct{ device, number uint64 }

type packer struct {
	sink    io.Writer
	archive *tar.Writer
	buffer  []byte
	begun   []byte // of the file that is being packed
	copied  Copied
	device  uint64
	// seen has the names of files that other names link to.
	seen map[inode]string
}

// add packs what is called name in a directory that is held open; path is for messages.
func (p *packer) add(directory int, name, archived, path string) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(directory, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return explain(err, path)
	}
	header := &tar.Header{
		Name:    archived,
		Mode:    int64(stat.Mode & permissions),
		Uid:     int(stat.Uid),
		Gid:     int(stat.Gid),
		ModTime: time.Unix(stat.Mtim.Unix()),
		Format:  tar.FormatPAX,
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return p.addDirectory(directory, name, header, stat.Dev == p.device, path)
	case unix.S_IFREG:
		return p.addFile(directory, name, header, path)
	case unix.S_IFLNK:
		target, err := readlink(directory, name)
		if err != nil {
			return explain(err, path)
		}
		header.Typeflag, header.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		header.Typeflag = tar.TypeChar
		if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			header.Typeflag = tar.TypeBlock
		}
		header.Devmajor, header.Devminor = int64(unix.Major(stat.Rdev)), int64(unix.Minor(stat.Rdev))
	default: // a socket is nothing without its listener
		return nil
	}
	return p.begin(header)
}

func (p *packer) begin(header *tar.Header) error {
	p.copied.Entries++
	return p.archive.WriteHeader(header)
}

func (p *packer) addDirectory(parent int, name string, header *tar.Header, descend bool, path string) error {
	header.Typeflag = tar.TypeDir
	header.Name += "/"
	archived := header.Name
	descriptor, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return explain(err, path)
	}
	directory := os.NewFile(uintptr(descriptor), path)
	defer directory.Close()
	if err := p.addAttributes(descriptor, header); err != nil {
		return explain(err, path)
	}
	if err := p.begin(header); err != nil || !descend {
		return err
	}
	names, err := directory.Readdirnames(-1)
	if err != nil {
		return explain(err, path)
	}
	slices.Sort(names)
	for _, name := range names {
		begun := p.copied.Entries
		err := p.add(descriptor, name, archived+name, filepath.Join(path, name))
		if err != nil && (p.copied.Entries > begun || !vanished(descriptor, name)) {
			return err
		}
	}
	return nil
}

// vanished: a file that was removed while we copied is none of the copy.
func vanished(directory int, name string) bool {
	var stat unix.Stat_t
	return unix.Fstatat(directory, name, &stat, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT
}

func (p *packer) addFile(directory int, name string, header *tar.Header, path string) error {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	descriptor, err := unix.Openat(directory, name, flags, 0)
	if err != nil {
		return explain(err, path)
	}
	file := os.NewFile(uintptr(descriptor), path)
	defer file.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(descriptor, &stat); err != nil {
		return explain(err, path)
	}
	key := inode{stat.Dev, stat.Ino}
	if first, linked := p.seen[key]; linked {
		header.Typeflag, header.Linkname = tar.TypeLink, first
		return p.begin(header)
	}
	if stat.Nlink > 1 {
		p.seen[key] = header.Name
	}
	if err := p.addAttributes(descriptor, header); err != nil {
		return explain(err, path)
	}
	parts, err := segments(descriptor, &stat)
	if err != nil {
		return explain(err, path)
	}
	if parts != nil {
		return p.addSparse(file, header, parts, stat.Size)
	}
	begin, size, err := p.measure(file, path)
	if err != nil {
		return explain(err, path)
	}
	header.Typeflag, header.Size = tar.TypeReg, size
	if err := p.begin(header); err != nil {
		return err
	}
	p.copied.Bytes += uint64(size)
	return p.content(io.MultiReader(bytes.NewReader(begin), file), size, path)
}

// measure answers how much a file holds, and how it begins, which was read for that: an archive tells the size first, and
// a file of the kernel's (/proc, /sys) has none that is true. Content that ends within the first chunk is the size. Of a
// file that is longer the kernel's word counts, as of now: what is written behind that meanwhile is none of the copy.
// Where that is less than what was read, the rest is read too.
func (p *packer) measure(file *os.File, path string) (begin []byte, size int64, err error) {
	begin = p.begun
	filled, err := io.ReadFull(file, begin)
	for err == nil {
		var stat unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
			return nil, 0, err
		}
		if stat.Size > int64(filled) {
			return begin, stat.Size, nil
		}
		if filled >= mostUntold {
			return nil, 0, failure.New(agentpb.ErrorCode_ERROR_CODE_FILE_TOO_LARGE,
				"%s: it says that it holds %d bytes, and holds more than %d", path, stat.Size, filled)
		}
		begin = append(begin, make([]byte, min(filled, mostUntold-filled))...)
		var more int
		more, err = io.ReadFull(file, begin[filled:])
		filled += more
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return begin[:filled], int64(filled), nil
	}
	return nil, 0, err
}

// content packs so many bytes, neither less nor more.
func (p *packer) content(source io.Reader, size int64, path string) error {
	copied, err := io.CopyBuffer(struct{ io.Writer }{p.archive}, io.LimitReader(source, size), p.buffer)
	if err == nil && copied < size {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_FILE_BUSY, "%s: it shrank while it was read", path)
	}
	return explain(err, path)
}

func (p *packer) addAttributes(file int, header *tar.Header) error {
	records, leftOut, err := readAttributes(file)
	p.copied.AttributesLeftOut += leftOut
	header.PAXRecords = records
	return err
}
