// Package layers puts the layers of an image on top of each other, as inodes in memory: no name of theirs is ever one of
// the host's. They may have been made by anybody.
package layers

import "time"

// Kind is what an inode is.
type Kind byte

// The kinds, but for sockets, which no archive holds.
const (
	File Kind = iota
	Directory
	Symlink
	CharacterDevice
	BlockDevice
	Fifo
)

// Piece is bytes of a file's content: those of a source from an offset on, at a place in the file. What no piece covers
// is zeros.
type Piece struct {
	Source int
	Offset int64
	Length int64
	At     int64
}

// Inode is a file, with everything but its names.
type Inode struct {
	Kind     Kind
	Mode     uint16 // permissions, with set-uid, set-gid and sticky
	UID      uint32
	GID      uint32
	Changed  time.Time
	Size     int64
	Content  []Piece
	Target   string // of a symlink
	Major    uint32
	Minor    uint32
	Xattrs   map[string]string
	Children map[string]*Inode // of a directory

	layer int // of a directory: the last one that has it, or something in it
}

func newDirectory(layer int) *Inode {
	return &Inode{Kind: Directory, Mode: 0o755, Changed: time.Unix(0, 0), Children: map[string]*Inode{}, layer: layer}
}

// names counts those in a directory and below.
func (i *Inode) names() int {
	count := len(i.Children)
	for _, child := range i.Children {
		count += child.names()
	}
	return count
}
