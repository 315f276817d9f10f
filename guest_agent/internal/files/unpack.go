package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// beneath: no component of a name below the directory may be a symbolic link, or lead out of it; see openat2(2).
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS

// Unpack takes a tar archive apart in a directory. Files that are there are replaced, directories kept. Nothing is
// written through a symbolic link. With preserve owners, setuid and setgid bits and extended attributes are the
// archive's; otherwise everything belongs to whoever does it, and directories that are there stay as they are.
func Unpack(directory string, preserve bool, source io.Reader) (Copied, error) {
	root, err := openDirectory(directory, false)
	if err != nil {
		return Copied{}, err
	}
	defer unix.Close(root)
	tracked := &trackedReader{source: source}
	u := &unpacker{root: root, preserve: preserve, archive: tar.NewReader(tracked), buffer: make([]byte, chunk)}
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
	// Behind the end of an archive there may be padding.
	if _, err := io.Copy(io.Discard, source); err != nil {
		return Copied{}, err
	}
	return u.copied, u.finish()
}

// trackedReader tells an archive that is broken from a source that is.
type trackedReader struct {
	source io.Reader
	err    error
}

func (r *trackedReader) Read(data []byte) (int, error) {
	size, err := r.source.Read(data)
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
	root     int
	preserve bool
	archive  *tar.Reader
	buffer   []byte
	copied   Copied
	// directories get their modes and times when nothing is written into them any more.
	directories []*tar.Header
}

func (u *unpacker) take(header *tar.Header) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := nameWithin(header.Name)
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
		made, err := makeDirectory(parent, name)
		if err == nil && (made || u.preserve) {
			u.directories = append(u.directories, header)
		}
		return err
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.makeFile(parent, name, header)
	case tar.TypeLink:
		return u.makeLink(parent, name, header)
	case tar.TypeSymlink:
		return u.makeNode(parent, name, header, func() error { return unix.Symlinkat(header.Linkname, parent, name) })
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		kinds := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}
		device := unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor))
		return u.makeNode(parent, name, header, func() error {
			if err := unix.Mknodat(parent, name, kinds[header.Typeflag]|0o600, int(device)); err != nil {
				return err
			}
			return chmodNode(parent, name, u.mode(header))
		})
	}
	return badArchive("%s: an entry of type %q", header.Name, header.Typeflag)
}

func (u *unpacker) makeFile(parent int, name string, header *tar.Header) error {
	var descriptor int
	err := replacing(parent, name, func() (err error) {
		flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		descriptor, err = unix.Openat(parent, name, flags, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(descriptor), header.Name)
	defer file.Close()
	if err := u.fill(file, header); err != nil {
		_ = unix.Unlinkat(parent, name, 0) // half a file is worse than none; the first failure is the one to tell
		return err
	}
	return u.adorn(parent, name, descriptor, header)
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
	target, err := nameWithin(header.Linkname)
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
	return replacing(parent, name, func() error {
		return unix.Linkat(targetParent, path.Base(target), parent, name, 0)
	})
}

// makeNode makes what has no content.
func (u *unpacker) makeNode(parent int, name string, header *tar.Header, create func() error) error {
	if err := replacing(parent, name, create); err != nil {
		return err
	}
	if u.preserve {
		if err := unix.Fchownat(parent, name, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return setTime(parent, name, header)
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
	parent, err := u.open(path.Dir(header.Name), false)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	name := path.Base(header.Name)
	directory, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(directory)
	return u.adorn(parent, name, directory, header)
}

func (u *unpacker) mode(header *tar.Header) uint32 {
	mode := uint32(header.Mode) & permissions
	if !u.preserve {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	return mode
}

// open opens a directory below the root; create: an archive may name what is in a directory without the directory.
func (u *unpacker) open(name string, create bool) (int, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath}
	descriptor, err := unix.Openat2(u.root, name, how)
	if err != unix.ENOENT || !create || name == "." {
		return descriptor, err
	}
	parent, err := u.open(path.Dir(name), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, path.Base(name), newDirectoryMode); err != nil {
		return -1, err
	}
	return u.open(name, false)
}

// makeDirectory makes one that only its maker may use, until it is finished; or takes the one that is there.
func makeDirectory(parent int, name string) (made bool, err error) {
	err = unix.Mkdirat(parent, name, 0o700)
	if err != unix.EEXIST {
		return err == nil, err
	}
	var there unix.Stat_t
	if err := unix.Fstatat(parent, name, &there, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	switch there.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return false, nil
	case unix.S_IFLNK:
		return false, unix.ELOOP
	}
	return false, unix.ENOTDIR
}

// replacing makes something, if need be in the place of what is there; but never in that of a directory.
func replacing(parent int, name string, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	if err := unix.Unlinkat(parent, name, 0); err != nil {
		return err
	}
	return create()
}

func setTime(parent int, name string, header *tar.Header) error {
	when, err := unix.TimeToTimespec(header.ModTime)
	if err != nil {
		return badArchive("%s: a time of %s", header.Name, header.ModTime)
	}
	times := []unix.Timespec{when, when}
	return unix.UtimesNanoAt(parent, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// nameWithin cleans a name of an archive, which must not leave the directory that it is unpacked in.
func nameWithin(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) ||
		slices.Contains(strings.Split(name, "/"), "..") {
		return "", badArchive("the name %q", name)
	}
	return path.Clean(name), nil
}

func badArchive(format string, arguments ...any) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_ARCHIVE_INVALID, "the archive can't be unpacked: "+format, arguments...)
}
