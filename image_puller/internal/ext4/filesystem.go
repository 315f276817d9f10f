// Package ext4 reads file systems of ext2, ext3 and ext4 in files, without mounting them: who may read the file may read
// them. They may have been written by anybody, guests above all.
//
// The layout is the kernel's Documentation/filesystems/ext4.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ingle.dev/image_puller/internal/layers"
	"ingle.dev/image_puller/internal/wire"
)

const (
	superblockAt = 1024
	magic        = 0xEF53
	rootInode    = 2

	compatibleExtents  = 0x40
	incompatMetaGroups = 0x10
	incompat64Bit      = 0x80
	// File types in directories, a journal to be replayed, extents, meta groups, 64 bits, multiple mount protection,
	// flexible groups, attributes in inodes, a seed of checksums, large directories, data in inodes.
	incompatKnown = 0x2 | 0x4 | compatibleExtents | incompatMetaGroups | incompat64Bit | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000
	incompatDirty = 0x4

	leastBlock, mostBlock   = 1 << 10, 64 << 10
	leastInode, mostInode   = 128, 4 << 10
	leastGroup, mostOfGroup = 32, 1 << 10
)

var little = binary.LittleEndian

func invalid(format string, arguments ...any) error {
	return wire.Fail(wire.Invalid, format, arguments...)
}

// fileSystem is one of them. What it says of itself is believed no further than it is read.
type fileSystem struct {
	file           io.ReaderAt
	size           int64
	block          int64
	blocks         uint64
	inodes         uint32
	firstBlock     uint64
	blocksPerGroup uint64
	inodesPerGroup uint32
	inodeSize      int64
	descriptorSize int64
	wide           bool
	metaGroups     bool
	firstMetaGroup uint64
	// found is how many pieces there are of all files: they are in memory.
	found int
}

func open(file io.ReaderAt, size int64) (*fileSystem, error) {
	super := make([]byte, 1024)
	if _, err := file.ReadAt(super, superblockAt); err != nil {
		return nil, invalid("it has no superblock: %v", err)
	}
	if little.Uint16(super[0x38:]) != magic {
		return nil, invalid("it is no ext4 file system")
	}
	incompat := little.Uint32(super[0x60:])
	if unknown := incompat &^ incompatKnown; unknown != 0 {
		return nil, invalid("it has features that are not known here: %#x", unknown)
	}
	if incompat&incompatDirty != 0 {
		return nil, invalid("its journal has to be replayed first")
	}
	shift := little.Uint32(super[0x18:])
	if shift > 6 {
		return nil, invalid("its blocks are larger than %d bytes", mostBlock)
	}
	f := &fileSystem{
		file: file, size: size,
		block:          leastBlock << shift,
		blocks:         uint64(little.Uint32(super[0x4:])),
		inodes:         little.Uint32(super[0x0:]),
		firstBlock:     uint64(little.Uint32(super[0x14:])),
		blocksPerGroup: uint64(little.Uint32(super[0x20:])),
		inodesPerGroup: little.Uint32(super[0x28:]),
		inodeSize:      leastInode,
		descriptorSize: leastGroup,
		wide:           incompat&incompat64Bit != 0,
		metaGroups:     incompat&incompatMetaGroups != 0,
		firstMetaGroup: uint64(little.Uint32(super[0x104:])),
	}
	if little.Uint32(super[0x4C:]) > 0 { // before that all was fixed
		f.inodeSize = int64(little.Uint16(super[0x58:]))
	}
	if f.wide {
		f.blocks |= uint64(little.Uint32(super[0x150:])) << 32
		f.descriptorSize = int64(little.Uint16(super[0xFE:]))
	}
	switch {
	case f.inodeSize < leastInode || f.inodeSize > mostInode || f.inodeSize&(f.inodeSize-1) != 0,
		f.descriptorSize < leastGroup || f.descriptorSize > mostOfGroup || f.descriptorSize&(f.descriptorSize-1) != 0,
		f.blocksPerGroup == 0, f.inodesPerGroup == 0, f.inodes < rootInode,
		f.blocks > 1<<48 || int64(f.blocks)*f.block > size:
		return nil, invalid("its superblock has numbers that can't be")
	}
	return f, nil
}

// at is where a block is, of which there is so much.
func (f *fileSystem) at(block uint64) (int64, error) {
	if block == 0 || block >= f.blocks {
		return 0, invalid("it refers to block %d of %d", block, f.blocks)
	}
	return int64(block) * f.block, nil
}

func (f *fileSystem) readBlock(block uint64) ([]byte, error) {
	at, err := f.at(block)
	if err != nil {
		return nil, err
	}
	content := make([]byte, f.block)
	return content, f.read(content, at)
}

func (f *fileSystem) read(into []byte, at int64) error {
	if _, err := f.file.ReadAt(into, at); err != nil {
		return invalid("it can't be read at %d: %v", at, err)
	}
	return nil
}

// inodeAt is where an inode is.
func (f *fileSystem) inodeAt(number uint32) (int64, error) {
	if number == 0 || number > f.inodes {
		return 0, invalid("it refers to inode %d of %d", number, f.inodes)
	}
	group := uint64((number - 1) / f.inodesPerGroup)
	descriptor := make([]byte, f.descriptorSize)
	at, err := f.descriptorAt(group)
	if err != nil {
		return 0, err
	}
	if err := f.read(descriptor, at); err != nil {
		return 0, err
	}
	table := uint64(little.Uint32(descriptor[0x8:]))
	if f.wide && f.descriptorSize >= 64 {
		table |= uint64(little.Uint32(descriptor[0x28:])) << 32
	}
	begin, err := f.at(table)
	if err != nil {
		return 0, err
	}
	at = begin + int64((number-1)%f.inodesPerGroup)*f.inodeSize
	if at+f.inodeSize > f.size {
		return 0, invalid("inode %d is behind its end", number)
	}
	return at, nil
}

func (f *fileSystem) descriptorAt(group uint64) (int64, error) {
	perBlock := uint64(f.block / f.descriptorSize)
	meta := group / perBlock
	within := int64(group%perBlock) * f.descriptorSize
	block := f.firstBlock + 1 + meta
	if f.metaGroups && meta >= f.firstMetaGroup {
		first := meta * perBlock
		block = f.firstBlock + first*f.blocksPerGroup
		if hasSuperblock(first) {
			block++
		}
	}
	at, err := f.at(block)
	return at + within, err
}

// hasSuperblock is for file systems with sparse_super, as all are that have meta groups: 0, 1, and powers of 3, 5 and 7.
func hasSuperblock(group uint64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		power := base
		for power < group {
			power *= base
		}
		if power == group {
			return true
		}
	}
	return false
}

func described(number uint32, err error) error {
	if err == nil {
		return nil
	}
	var problem *wire.Problem
	if errors.As(err, &problem) {
		return wire.Fail(problem.Reason, "inode %d: %s", number, problem.Message)
	}
	return fmt.Errorf("inode %d: %w", number, err)
}

// Source is the only one of the pieces that Read answers: the file itself.
const Source = 0

// Read is all that is in a file system, but for sockets and what fsck finds.
func Read(file io.ReaderAt, size int64, limits layers.Limits) (*layers.Tree, error) {
	system, err := open(file, size)
	if err != nil {
		return nil, err
	}
	walk := walk{system: system, limits: limits, known: map[uint32]*layers.Inode{}}
	root, err := walk.inode(rootInode)
	if err != nil {
		return nil, err
	}
	if root == nil || root.Kind != layers.Directory {
		return nil, invalid("its root is no directory")
	}
	if err := walk.all(root); err != nil {
		return nil, err
	}
	return layers.TreeOf(root), nil
}
