package ext4

import (
	"time"

	"ingle.dev/image_puller/internal/layers"
)

const (
	flagEncrypted = 0x800
	flagExtents   = 0x80000
	flagInline    = 0x10000000

	extentMagic   = 0xF30A
	deepestExtent = 5
	longestExtent = 1 << 15 // what is longer by so much was never written to
	mapAt         = 0x28
	mapSize       = 60
	longestTarget = 4095
)

var kinds = map[uint16]layers.Kind{
	0x1000: layers.Fifo, 0x2000: layers.CharacterDevice, 0x4000: layers.Directory, 0x6000: layers.BlockDevice,
	0x8000: layers.File, 0xA000: layers.Symlink,
}

// raw is an inode as it is.
type raw struct {
	number  uint32
	at      int64
	content []byte
}

func (f *fileSystem) raw(number uint32) (raw, error) {
	at, err := f.inodeAt(number)
	if err != nil {
		return raw{}, err
	}
	content := make([]byte, f.inodeSize)
	return raw{number, at, content}, f.read(content, at)
}

func (r raw) mode() uint16     { return little.Uint16(r.content) }
func (r raw) flags() uint32    { return little.Uint32(r.content[0x20:]) }
func (r raw) blockMap() []byte { return r.content[mapAt : mapAt+mapSize] }
func (r raw) size() int64 {
	return int64(little.Uint32(r.content[0x4:])) | int64(little.Uint32(r.content[0x6C:]))<<32
}
func (r raw) attributes() uint64 {
	return uint64(little.Uint32(r.content[0x68:])) | uint64(little.Uint16(r.content[0x76:]))<<32
}

// extra is where the part of an inode ends that is more than the first 128 bytes.
func (r raw) extra() int64 {
	if len(r.content) <= leastInode {
		return leastInode
	}
	return leastInode + int64(little.Uint16(r.content[0x80:]))
}

func (r raw) changed() time.Time {
	seconds, nanoseconds := int64(int32(little.Uint32(r.content[0x10:]))), int64(0)
	if r.extra() >= 0x8C && len(r.content) >= 0x8C {
		more := little.Uint32(r.content[0x88:])
		seconds += int64(more&3) << 32
		nanoseconds = int64(more >> 2)
	}
	return layers.TimeOf(time.Unix(seconds, nanoseconds))
}

// describe makes what it is of an inode, but for what is in it; nil is a socket.
func (f *fileSystem) describe(r raw) (*layers.Inode, error) {
	kind, known := kinds[r.mode()&0xF000]
	if !known {
		if r.mode()&0xF000 == 0xC000 {
			return nil, nil
		}
		return nil, invalid("it has the mode %#o, of nothing that can be", r.mode())
	}
	if r.flags()&flagEncrypted != 0 {
		return nil, invalid("it is encrypted")
	}
	inode := &layers.Inode{
		Kind: kind, Mode: r.mode() & 0o7777, Changed: r.changed(),
		UID: uint32(little.Uint16(r.content[0x2:])) | uint32(little.Uint16(r.content[0x78:]))<<16,
		GID: uint32(little.Uint16(r.content[0x18:])) | uint32(little.Uint16(r.content[0x7A:]))<<16,
	}
	if kind == layers.Directory {
		inode.Children = map[string]*layers.Inode{}
	}
	if kind == layers.CharacterDevice || kind == layers.BlockDevice {
		inode.Major, inode.Minor = device(r.blockMap())
	}
	return inode, nil
}

// device has one of two forms.
func device(content []byte) (uint32, uint32) {
	if old := little.Uint32(content); old != 0 {
		return old >> 8 & 0xFF, old & 0xFF
	}
	dev := little.Uint32(content[4:])
	return dev >> 8 & 0xFFF, dev&0xFF | dev>>12&0xFFF00
}

// pieces are where the content of a file or a directory is.
func (f *fileSystem) pieces(r raw, inline *layers.Piece) ([]layers.Piece, error) {
	size := r.size()
	if size < 0 {
		return nil, invalid("it has a size that can't be")
	}
	if r.flags()&flagInline != 0 {
		return inlinePieces(r, inline)
	}
	found := extents{system: f, size: size}
	if r.flags()&flagExtents != 0 {
		err := found.tree(r.blockMap(), -1)
		return found.pieces, err
	}
	err := found.blocks(r.blockMap())
	return found.pieces, err
}

// inlinePieces are those of a file so small that it is in its inode, and goes on in an attribute.
func inlinePieces(r raw, rest *layers.Piece) ([]layers.Piece, error) {
	size := r.size()
	pieces := []layers.Piece{{Source: Source, Offset: r.at + mapAt, Length: min(size, mapSize)}}
	if size <= mapSize {
		if size == 0 {
			return nil, nil
		}
		return pieces, nil
	}
	if rest == nil || rest.Length < size-mapSize {
		return nil, invalid("it lacks a part of its content")
	}
	return append(pieces, layers.Piece{Source: Source, Offset: rest.Offset, Length: size - mapSize, At: mapSize}), nil
}

// extents collects where content is.
type extents struct {
	system *fileSystem
	size   int64
	pieces []layers.Piece
}

func (e *extents) more() error {
	const most = 4 << 20
	if e.system.found++; e.system.found > most {
		return invalid("its files are in more than %d pieces", most)
	}
	return nil
}

// add says that blocks of the file are from some block on.
func (e *extents) add(logical uint64, length uint64, block uint64) error {
	f := e.system
	at := int64(logical) * f.block
	if at >= e.size || length == 0 { // what was allocated beyond the end
		return nil
	}
	begin, err := f.at(block)
	if err != nil {
		return err
	}
	if block+length > f.blocks {
		return invalid("it refers to blocks behind the end")
	}
	bytes := min(int64(length)*f.block, e.size-at)
	if last := len(e.pieces) - 1; last >= 0 {
		former := &e.pieces[last]
		if at < former.At+former.Length {
			return invalid("its pieces overlap")
		}
		if former.At+former.Length == at && former.Offset+former.Length == begin {
			former.Length += bytes
			return nil
		}
	}
	if err := e.more(); err != nil {
		return err
	}
	e.pieces = append(e.pieces, layers.Piece{Source: Source, Offset: begin, Length: bytes, At: at})
	return nil
}

// tree reads a node of extents. `depth`: what it has to be; negative at the root.
func (e *extents) tree(node []byte, depth int) error {
	if little.Uint16(node) != extentMagic {
		return invalid("its extents can't be read")
	}
	entries, here := int(little.Uint16(node[2:])), int(little.Uint16(node[6:]))
	if here > deepestExtent || depth >= 0 && here != depth || 12+12*entries > len(node) {
		return invalid("its extents can't be read")
	}
	for number := range entries {
		entry := node[12+12*number:]
		if here > 0 {
			content, err := e.system.readBlock(uint64(little.Uint32(entry[4:])) | uint64(little.Uint16(entry[8:]))<<32)
			if err != nil {
				return err
			}
			if err := e.more(); err != nil {
				return err
			}
			if err := e.tree(content, here-1); err != nil {
				return err
			}
			continue
		}
		length := uint64(little.Uint16(entry[4:]))
		if length > longestExtent {
			continue // zeros
		}
		block := uint64(little.Uint32(entry[8:])) | uint64(little.Uint16(entry[6:]))<<32
		if err := e.add(uint64(little.Uint32(entry)), length, block); err != nil {
			return err
		}
	}
	return nil
}

// blocks reads a map of blocks, as ext2 and ext3 have it.
func (e *extents) blocks(content []byte) error {
	logical := uint64(0)
	for number := range 15 {
		depth := max(0, number-11)
		if err := e.mapped(uint64(little.Uint32(content[4*number:])), depth, &logical); err != nil {
			return err
		}
	}
	return nil
}

// mapped takes what a block of numbers, of such, or of such again stands for.
func (e *extents) mapped(block uint64, depth int, logical *uint64) error {
	perBlock := uint64(e.system.block / 4)
	if int64(*logical)*e.system.block >= e.size {
		return nil
	}
	if depth == 0 {
		*logical++
		if block == 0 {
			return nil
		}
		return e.add(*logical-1, 1, block)
	}
	if block == 0 {
		span := uint64(1)
		for range depth {
			span *= perBlock
		}
		*logical += span
		return nil
	}
	content, err := e.system.readBlock(block)
	if err != nil {
		return err
	}
	for number := range perBlock {
		if err := e.mapped(uint64(little.Uint32(content[4*number:])), depth-1, logical); err != nil {
			return err
		}
	}
	return nil
}
