package ext4

import (
	"strings"

	"ingle.dev/image_puller/internal/layers"
)

const (
	deepest       = 256
	mostDirectory = 256 << 20 // bytes of one
	lostAndFound  = "lost+found"
)

// walk makes a tree of a file system.
type walk struct {
	system *fileSystem
	limits layers.Limits
	known  map[uint32]*layers.Inode
	names  int
	bytes  int64
	xattrs int
	// directories are those whose entries were not read yet.
	directories []directory
}

type directory struct {
	inode  *layers.Inode
	number uint32
	pieces []layers.Piece
	size   int64
	depth  int
	inline bool
}

// all reads the directories, which are more and more.
func (w *walk) all(root *layers.Inode) error {
	for len(w.directories) > 0 {
		last := len(w.directories) - 1
		next := w.directories[last]
		w.directories = w.directories[:last]
		if err := w.entries(next); err != nil {
			return described(next.number, err)
		}
	}
	if found := root.Children[lostAndFound]; found != nil && found.Kind == layers.Directory && len(found.Children) == 0 {
		delete(root.Children, lostAndFound)
	}
	return nil
}

// inode is what has that number; nil for a socket.
func (w *walk) inode(number uint32) (*layers.Inode, error) {
	if known, found := w.known[number]; found {
		if known != nil && known.Kind == layers.Directory {
			return nil, invalid("the directory %d has two names", number)
		}
		return known, nil
	}
	made, err := w.read(number)
	if err != nil {
		return nil, described(number, err)
	}
	w.known[number] = made
	return made, nil
}

func (w *walk) read(number uint32) (*layers.Inode, error) {
	r, err := w.system.raw(number)
	if err != nil {
		return nil, err
	}
	inode, err := w.system.describe(r)
	if err != nil || inode == nil {
		return nil, err
	}
	xattrs, inline, err := w.system.xattrs(r)
	if err != nil {
		return nil, err
	}
	for name, value := range xattrs {
		if w.xattrs += len(name) + len(value); w.xattrs > layers.MostXattrs {
			return nil, invalid("it has too many extended attributes")
		}
	}
	inode.Xattrs = xattrs
	switch inode.Kind {
	case layers.File:
		inode.Size = r.size()
		if w.bytes += inode.Size; inode.Size < 0 || w.bytes > w.limits.Bytes || w.bytes < 0 {
			return nil, invalid("its files have more than the %d bytes that are allowed", w.limits.Bytes)
		}
		inode.Content, err = w.system.pieces(r, inline)
	case layers.Symlink:
		inode.Target, err = w.target(r, inline)
	case layers.Directory:
		err = w.begin(r, inode, inline)
	}
	return inode, err
}

func (w *walk) begin(r raw, inode *layers.Inode, inline *layers.Piece) error {
	if r.size() < 0 || r.size() > mostDirectory {
		return invalid("a directory has %d bytes; %d are allowed", r.size(), mostDirectory)
	}
	pieces, err := w.system.pieces(r, inline)
	w.directories = append(w.directories, directory{
		inode: inode, number: r.number, pieces: pieces, size: r.size(), inline: r.flags()&flagInline != 0,
	})
	return err
}

// target is where a symlink leads, which is in the inode if it is short.
func (w *walk) target(r raw, inline *layers.Piece) (string, error) {
	size := r.size()
	if size <= 0 || size > longestTarget {
		return "", invalid("a symlink has %d bytes", size)
	}
	if size < mapSize && r.flags()&(flagExtents|flagInline) == 0 {
		return checkedTarget(r.blockMap()[:size])
	}
	pieces, err := w.system.pieces(r, inline)
	if err != nil {
		return "", err
	}
	content, err := w.content(pieces, size)
	if err != nil {
		return "", err
	}
	return checkedTarget(content)
}

func checkedTarget(content []byte) (string, error) {
	target := string(content)
	if strings.ContainsRune(target, 0) {
		return "", invalid("a symlink has a NUL")
	}
	return target, nil
}

// content puts pieces together, of what is small.
func (w *walk) content(pieces []layers.Piece, size int64) ([]byte, error) {
	content := make([]byte, size)
	for _, piece := range pieces {
		if err := w.system.read(content[piece.At:piece.At+piece.Length], piece.Offset); err != nil {
			return nil, err
		}
	}
	return content, nil
}

// entries reads a directory, block by block.
func (w *walk) entries(here directory) error {
	if here.inline {
		content, err := w.content(here.pieces, here.size)
		if err != nil || len(content) < 4 {
			return err
		}
		// The number of the parent, entries in the inode, and entries in the attribute.
		first := min(len(content), mapSize)
		if err := w.block(here, content[4:first]); err != nil {
			return err
		}
		return w.block(here, content[first:])
	}
	for _, piece := range here.pieces {
		for at := int64(0); at < piece.Length; at += w.system.block {
			content := make([]byte, min(w.system.block, piece.Length-at))
			if err := w.system.read(content, piece.Offset+at); err != nil {
				return err
			}
			if err := w.block(here, content); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) block(here directory, content []byte) error {
	for len(content) >= 8 {
		length := int(little.Uint16(content[4:]))
		if length == 0 && len(content) == 1<<16 {
			length = len(content) // as much does not fit into it
		}
		named := int(content[6])
		if length < 8 || length%4 != 0 || length > len(content) || 8+named > length {
			return invalid("a directory can't be read")
		}
		number, name := little.Uint32(content), string(content[8:8+named])
		content = content[length:]
		if number == 0 || name == "." || name == ".." {
			continue
		}
		if err := w.entry(here, name, number); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(here directory, name string, number uint32) error {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return invalid("a directory has the name %q, which none can have", name)
	}
	if _, twice := here.inode.Children[name]; twice {
		return invalid("a directory has %.200q twice", name)
	}
	if w.names++; w.names > w.limits.Names {
		return invalid("it has more than the %d files that are allowed", w.limits.Names)
	}
	before := len(w.directories)
	inode, err := w.inode(number)
	if err != nil || inode == nil {
		return err
	}
	here.inode.Children[name] = inode
	for at := before; at < len(w.directories); at++ {
		if w.directories[at].depth = here.depth + 1; here.depth >= deepest {
			return invalid("its directories are more than %d deep", deepest)
		}
	}
	return nil
}
