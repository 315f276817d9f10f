package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// Unpack takes a tar archive apart in a directory. Files that are there are replaced, each as a whole or not at all, and
// directories kept, also where a symbolic link that was there before leads to them, unless it leads out of the directory.
// What the archive links itself is never followed. With preserve owners, setuid and setgid bits and extended attributes
// are the archive's; otherwise everything belongs to whoever does it, and directories that are there stay as they are.
//
// A name that isn't empty is what the top of the archive is called here; a symbolic link of that name is followed.
func Unpack(directory, name string, preserve bool, source io.Reader) (Copied, error) {
	root, err := openDirectory(directory, false)
	if err != nil {
		return Copied{}, err
	}
	if name != "" {
		if root, name, err = toFile(root, name); err != nil {
			return Copied{}, explain(err, path.Join(directory, name))
		}
	}
	defer unix.Close(root)
	tracked := &trackedReader{source: source}
	u := &unpacker{
		root: root, wholeGuest: same(root, unix.AT_FDCWD, "/"), top: name, preserve: preserve, links: map[inode]struct{}{},
		archive: tar.NewReader(tracked), buffer: make([]byte, chunk),
	}
	for {
		header, err := u.archive.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = u.take(header)
		}
		if err != nil {
			return Copied{}, tracked.blame(err)
		}
	}
	if tracked.ended && tracked.zeros < tarBlock {
		return Copied{}, badArchive("it stops without the blocks of zeros that are its end: was all of it sent?")
	}
	// Behind the end of an archive there may be padding.
	if _, err := io.Copy(io.Discard, source); err != nil {
		return Copied{}, err
	}
	return u.copied, u.finish()
}

// trackedReader tells an archive that is broken from a source that is, and one that has ended from one that stopped: to
// archive/tar a source that ends between two entries is as good as an archive's own end.
type trackedReader struct {
	source io.Reader
	err    error
	ended  bool
	zeros  int // at the end of what was read, up to a block
}

func (r *trackedReader) Read(data []byte) (int, error) {
	size, err := r.source.Read(data)
	read := data[max(0, size-tarBlock):size]
	zeros := len(read) - len(bytes.TrimRight(read, "\x00"))
	if zeros == size {
		zeros += r.zeros
	}
	r.zeros = min(zeros, tarBlock)
	r.ended = err == io.EOF
	if err != nil && err != io.EOF {
		r.err = err
	}
	return size, err
}

func (r *trackedReader) blame(err error) error {
	switch {
	case r.err != nil:
		return r.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badArchive("it ends in the middle")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return badArchive("%v", err)
	}
	return err
}

type unpacker struct {
	root int
	// wholeGuest: the root is the guest's own, and nothing leads out of it.
	wholeGuest bool
	// top takes the place of the first component of all names.
	top      string
	preserve bool
	// links are what the archive has made itself, up to mostLinks.
	links   map[inode]struct{}
	archive *tar.Reader
	buffer  []byte
	copied  Copied
	// directories get their modes and times when nothing is written into them any more.
	directories []*tar.Header
}

func (u *unpacker) take(header *tar.Header) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := u.nameWithin(header.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil
	}
	header.Name = name
	parent, err := u.open(path.Dir(name), true)
	if err != nil {
		return explain(err, path.Dir(name))
	}
	defer unix.Close(parent)
	u.copied.Entries++
	return explain(u.make(parent, path.Base(name), header), name)
}

// make makes one entry.
func (u *unpacker) make(parent int, name string, header *tar.Header) error {
	switch header.Typeflag {
	case tar.TypeDir:
		made, err := u.makeDirectory(parent, name, header.Name)
		if err == nil && (made || u.preserve) {
			u.directories = append(u.directories, header)
		}
		return err
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.makeFile(parent, name, header)
	case tar.TypeLink:
		return u.makeLink(parent, name, header)
	case tar.TypeSymlink:
		return u.makeNode(parent, name, unix.S_IFLNK, header, func(temporary string) error {
			if err := unix.Symlinkat(header.Linkname, parent, temporary); err != nil {
				return err
			}
			return u.remember(parent, temporary)
		})
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		kind := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}[header.Typeflag]
		device := unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor))
		return u.makeNode(parent, name, kind, header, func(temporary string) error {
			if err := unix.Mknodat(parent, temporary, kind|0o600, int(device)); err != nil {
				return err
			}
			return chmodNode(parent, temporary, u.mode(header))
		})
	}
	return badArchive("%s: an entry of type %q", header.Name, header.Typeflag)
}

func (u *unpacker) makeFile(parent int, name string, header *tar.Header) error {
	replaces, err := replaceable(parent, name, unix.S_IFREG)
	if err != nil {
		return err
	}
	return putInPlace(parent, name, func(temporary string) error {
		file, err := newFile(parent, temporary)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := u.fill(file, header); err != nil {
			return err
		}
		if err := u.adorn(parent, temporary, int(file.Fd()), header); err != nil || !replaces {
			return err
		}
		return file.Sync() // or a crash of the guest may leave neither the old content nor the new
	})
}

// fill writes a file's content, with holes if the archive says so.
func (u *unpacker) fill(file *os.File, header *tar.Header) error {
	if size, found := header.PAXRecords[sparseSize]; found {
		return u.fillSparse(file, header.Name, size)
	}
	var sink io.Writer = struct{ io.Writer }{file}
	if header.Typeflag == tar.TypeGNUSparse || header.PAXRecords[sparseMajor] != "" {
		if err := file.Truncate(header.Size); err != nil {
			return err
		}
		sink = &holeMaker{file: file}
	}
	size, err := io.CopyBuffer(sink, u.archive, u.buffer)
	u.copied.Bytes += uint64(size)
	return err
}

// adorn gives an open file what else is known of it. Attributes come last: a change of owner takes capabilities away.
func (u *unpacker) adorn(parent int, name string, file int, header *tar.Header) error {
	if u.preserve {
		if err := unix.Fchown(file, header.Uid, header.Gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(file, u.mode(header)); err != nil {
		return err
	}
	if u.preserve {
		leftOut, err := writeAttributes(file, header)
		u.copied.AttributesLeftOut += leftOut
		if err != nil {
			return err
		}
	}
	return setTime(parent, name, header)
}

func (u *unpacker) makeLink(parent int, name string, header *tar.Header) error {
	target, err := u.nameWithin(header.Linkname)
	if err != nil {
		return err
	}
	if target == header.Name {
		return badArchive("%s: a hard link to itself", header.Name)
	}
	targetParent, err := u.open(path.Dir(target), false)
	if err != nil {
		return err
	}
	defer unix.Close(targetParent)
	if _, err := replaceable(parent, name, unix.S_IFREG); err != nil {
		return err
	}
	return putInPlace(parent, name, func(temporary string) error {
		if err := unix.Linkat(targetParent, path.Base(target), parent, temporary, 0); err != nil {
			return err
		}
		return u.remember(parent, temporary)
	})
}

// makeNode makes what has no content.
func (u *unpacker) makeNode(
	parent int, name string, kind uint32, header *tar.Header, create func(temporary string) error,
) error {
	if _, err := replaceable(parent, name, kind); err != nil {
		return err
	}
	return putInPlace(parent, name, func(temporary string) error {
		if err := create(temporary); err != nil {
			return err
		}
		if u.preserve {
			err := unix.Fchownat(parent, temporary, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW)
			if err != nil {
				return err
			}
		}
		return setTime(parent, temporary, header)
	})
}

// chmodNode changes the mode of what was just made, which must not be opened: fchmodat(2) would follow a symbolic link
// that somebody else put in its place.
func chmodNode(parent int, name string, mode uint32) error {
	node, err := unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(node)
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", node), mode)
}

// finish sets modes and times of directories, the deepest first: one that may not be searched is no obstacle then.
func (u *unpacker) finish() error {
	slices.Reverse(u.directories)
	for _, header := range u.directories {
		if err := u.finishDirectory(header); err != nil {
			return explain(err, header.Name)
		}
	}
	return nil
}

func (u *unpacker) finishDirectory(header *tar.Header) error {
	found, err := u.open(header.Name, false)
	if err != nil {
		return err
	}
	defer unix.Close(found)
	directory, err := unix.Openat(found, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(directory)
	return u.adorn(directory, ".", directory, header)
}

func (u *unpacker) mode(header *tar.Header) uint32 {
	mode := uint32(header.Mode) & permissions
	if !u.preserve {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	return mode
}

func setTime(parent int, name string, header *tar.Header) error {
	when, err := unix.TimeToTimespec(header.ModTime)
	if err != nil {
		return badArchive("%s: a time of %s", header.Name, header.ModTime)
	}
	times := []unix.Timespec{when, when}
	return unix.UtimesNanoAt(parent, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

func badArchive(format string, arguments ...any) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_ARCHIVE_INVALID, "the archive can't be unpacked: "+format, arguments...)
}
