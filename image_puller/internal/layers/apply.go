package layers

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"ingle.dev/image_puller/internal/wire"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	others   = ".wh..wh." // AUFS's own files

	xattrPrefix  = "SCHILY.xattr."
	longestXattr = 255
	// MostXattrs is how many bytes names and values of extended attributes may have, all or one file's.
	MostXattrs      = 64 << 20 // bytes of names and values in all
	MostXattrsInOne = 64 << 10

	sparsePrefix = "GNU.sparse."
	sparseBlock  = 4096
	mostSparse   = 64 << 30 // zeros are read, too: a minute of it
)

// Limits is how much layers may hold together.
type Limits struct {
	Names int
	Bytes int64
}

// Tree is what the layers so far are together.
type Tree struct {
	Root *Inode

	limits Limits
	// spill takes the data of sparse files, which archives have in pieces.
	spill   *os.File
	spilled int64
	names   int
	entries int
	xattrs  int
	bytes   int64
	sparse  int64
	layer   int
	targets int
	steps   int
	seen    map[*Inode]map[string]bool
	// forgotten are the directories in which this layer has nothing of those below it.
	forgotten map[*Inode]bool
}

// Spilled is the source of pieces that are in the file given to NewTree; any other is the number of a layer.
const Spilled = -1

// NewTree is an empty root. `spill` is an empty file.
func NewTree(limits Limits, spill *os.File) *Tree {
	return &Tree{Root: newDirectory(0), limits: limits, spill: spill, layer: -1}
}

// TreeOf is what is below a directory already.
func TreeOf(root *Inode) *Tree { return &Tree{Root: root} }

// Bytes is how much all files have that any layer has.
func (t *Tree) Bytes() int64 { return t.bytes }

// Apply puts a plain tar archive on top.
func (t *Tree) Apply(ctx context.Context, archive io.ReadSeeker) error {
	t.layer++
	t.seen, t.forgotten = map[*Inode]map[string]bool{}, map[*Inode]bool{}
	reader := tar.NewReader(archive)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid("layer %d is no tar archive, or a broken one: %v", t.layer+1, err)
		}
		if t.entries++; t.entries > 2*t.limits.Names {
			return t.tooMany()
		}
		if err := ctx.Err(); err != nil {
			return wire.Fail(wire.Cancelled, "cancelled")
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := t.entry(header, reader, archive); err != nil {
			return err
		}
	}
}

func (t *Tree) tooMany() error {
	return invalid("its layers have more than the %d files that are allowed", t.limits.Names)
}

func (t *Tree) entry(header *tar.Header, reader io.Reader, archive io.Seeker) error {
	parts, err := partsOf(header.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return t.root(header)
	}
	name := parts[len(parts)-1]
	if rest, found := strings.CutPrefix(name, whiteout); found {
		return t.whiteOut(parts[:len(parts)-1], name, rest)
	}
	parent, err := t.resolve(parts[:len(parts)-1], t.layer)
	if err != nil {
		return err
	}
	former := parent.Children[name]
	if header.Typeflag == tar.TypeDir {
		return t.directory(header, parent, name, former)
	}
	if former != nil && t.has(parent, name, former) {
		return invalid("layer %d has %.200q twice", t.layer+1, header.Name)
	}
	inode, err := t.inode(header, reader, archive)
	if err != nil {
		return err
	}
	return t.put(parent, name, former, inode)
}

func (t *Tree) root(header *tar.Header) error {
	if header.Typeflag != tar.TypeDir {
		return invalid("layer %d has a root that is no directory", t.layer+1)
	}
	return t.describe(t.Root, header)
}

func (t *Tree) directory(header *tar.Header, parent *Inode, name string, former *Inode) error {
	if former != nil && former.Kind == Directory {
		former.layer = t.layer
		return t.describe(former, header)
	}
	if former != nil && t.has(parent, name, former) {
		return invalid("layer %d has %.200q twice", t.layer+1, header.Name)
	}
	inode := newDirectory(t.layer)
	if err := t.describe(inode, header); err != nil {
		return err
	}
	return t.put(parent, name, former, inode)
}

// inode is what an entry stands for, which is there already if it is a link.
func (t *Tree) inode(header *tar.Header, reader io.Reader, archive io.Seeker) (*Inode, error) {
	if header.Typeflag == tar.TypeLink {
		return t.linked(header)
	}
	inode := &Inode{}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // what old archives have
		if err := t.content(inode, header, reader, archive); err != nil {
			return nil, err
		}
	case tar.TypeSymlink:
		inode.Kind, inode.Target = Symlink, header.Linkname
		if inode.Target == "" || len(inode.Target) > longestTarget || strings.ContainsRune(inode.Target, 0) {
			return nil, invalid("layer %d has the symlink %.200q to what no name can be", t.layer+1, header.Name)
		}
		if t.targets += len(inode.Target); t.targets > mostTargets {
			return nil, invalid("its layers have symlinks to more than the %d bytes that are allowed", mostTargets)
		}
	case tar.TypeChar, tar.TypeBlock:
		inode.Kind = CharacterDevice
		if header.Typeflag == tar.TypeBlock {
			inode.Kind = BlockDevice
		}
		const mostMajor, mostMinor = 1<<12 - 1, 1<<20 - 1
		if header.Devmajor < 0 || header.Devmajor > mostMajor || header.Devminor < 0 || header.Devminor > mostMinor {
			return nil, invalid("layer %d has the device %.200q with numbers that none has", t.layer+1, header.Name)
		}
		inode.Major, inode.Minor = uint32(header.Devmajor), uint32(header.Devminor)
	case tar.TypeFifo:
		inode.Kind = Fifo
	default:
		return nil, invalid("layer %d has %.200q, of the unknown type %q", t.layer+1, header.Name, header.Typeflag)
	}
	return inode, t.describe(inode, header)
}

func (t *Tree) linked(header *tar.Header) (*Inode, error) {
	parts, err := partsOf(header.Linkname)
	if err != nil {
		return nil, err
	}
	if len(parts) > 0 {
		parent, err := t.resolve(parts[:len(parts)-1], -1)
		if err != nil {
			return nil, err
		}
		if parent != nil {
			if target := parent.Children[parts[len(parts)-1]]; target != nil && target.Kind != Directory {
				return target, nil
			}
		}
	}
	return nil, invalid("layer %d has the hard link %.200q to %.200q, which is not there", t.layer+1, header.Name, header.Linkname)
}

// put gives an inode a name, in the place of what lower layers have there.
func (t *Tree) put(parent *Inode, name string, former *Inode, inode *Inode) error {
	if former != nil {
		t.remove(parent, name)
	}
	if inode.Kind != Directory {
		if t.seen[parent] == nil {
			t.seen[parent] = map[string]bool{}
		}
		t.seen[parent][name] = true
	}
	return t.add(parent, name, inode)
}

func (t *Tree) add(parent *Inode, name string, inode *Inode) error {
	if t.names++; t.names > t.limits.Names {
		return t.tooMany()
	}
	parent.Children[name] = inode
	return nil
}

func (t *Tree) remove(parent *Inode, name string) {
	t.names -= 1 + parent.Children[name].names()
	delete(parent.Children, name)
}

// describe takes over owner, mode, time and extended attributes.
func (t *Tree) describe(inode *Inode, header *tar.Header) error {
	const mostID = 1<<32 - 2 // -1 is nobody
	if header.Uid < 0 || header.Uid > mostID || header.Gid < 0 || header.Gid > mostID {
		return invalid("layer %d has %.200q with an owner that nobody can be", t.layer+1, header.Name)
	}
	inode.UID, inode.GID = uint32(header.Uid), uint32(header.Gid)
	inode.Mode = uint16(header.Mode & 0o7777)
	inode.Changed = TimeOf(header.ModTime)
	inode.Xattrs = nil
	size := 0
	for key, value := range header.PAXRecords {
		name, found := strings.CutPrefix(key, xattrPrefix)
		if !found {
			continue
		}
		if name == "" || len(name) > longestXattr || strings.ContainsRune(name, 0) {
			return invalid("layer %d has %.200q with an extended attribute that no file can have", t.layer+1, header.Name)
		}
		size += len(name) + len(value)
		if t.xattrs += len(name) + len(value); t.xattrs > MostXattrs || size > MostXattrsInOne {
			return invalid("layer %d has %.200q with too many extended attributes", t.layer+1, header.Name)
		}
		if inode.Xattrs == nil {
			inode.Xattrs = map[string]string{}
		}
		inode.Xattrs[name] = value
	}
	return nil
}

// TimeOf is within what ext4 has.
func TimeOf(said time.Time) time.Time {
	const latest = 1 << 33
	if said.Unix() < 0 {
		return time.Unix(0, 0)
	}
	if said.Unix() > latest {
		return time.Unix(latest, 0)
	}
	return said
}

// content notes where in the archive the content is.
func (t *Tree) content(inode *Inode, header *tar.Header, reader io.Reader, archive io.Seeker) error {
	inode.Size = header.Size
	if t.bytes += header.Size; t.bytes > t.limits.Bytes || header.Size < 0 || t.bytes < 0 {
		return invalid("its layers have more than the %d bytes that are allowed", t.limits.Bytes)
	}
	if IsSparse(header) {
		return t.spread(inode, reader)
	}
	if header.Size == 0 {
		return nil
	}
	// The reader has read no more than the header.
	at, err := archive.Seek(0, io.SeekCurrent)
	inode.Content = []Piece{{Source: t.layer, Offset: at, Length: header.Size}}
	return err
}

// IsSparse tells whether an archive has a file in pieces.
func IsSparse(header *tar.Header) bool {
	if header.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, sparsePrefix) {
			return true
		}
	}
	return false
}

// spread keeps the data of a sparse file; what is zeros needs none.
func (t *Tree) spread(inode *Inode, reader io.Reader) error {
	if t.sparse += inode.Size; t.sparse > mostSparse {
		return invalid("its sparse files have more than the %d bytes that are allowed", mostSparse)
	}
	buffer := make([]byte, 16*sparseBlock)
	for at := int64(0); at < inode.Size; {
		count, err := io.ReadFull(reader, buffer[:min(int64(len(buffer)), inode.Size-at)])
		if err != nil {
			return invalid("layer %d is truncated: %v", t.layer+1, err)
		}
		for from := 0; from < count; from += sparseBlock {
			block := buffer[from:min(from+sparseBlock, count)]
			if isZero(block) {
				continue
			}
			if err := t.keep(inode, block, at+int64(from)); err != nil {
				return err
			}
		}
		at += int64(count)
	}
	return nil
}

func (t *Tree) keep(inode *Inode, block []byte, at int64) error {
	if _, err := t.spill.WriteAt(block, t.spilled); err != nil {
		return err
	}
	if last := len(inode.Content) - 1; last >= 0 && inode.Content[last].At+inode.Content[last].Length == at {
		inode.Content[last].Length += int64(len(block))
	} else {
		inode.Content = append(inode.Content, Piece{Spilled, t.spilled, int64(len(block)), at})
	}
	t.spilled += int64(len(block))
	return nil
}

func isZero(block []byte) bool {
	for _, each := range block {
		if each != 0 {
			return false
		}
	}
	return true
}
