package layers

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"ingle.dev/image_puller/internal/wire"
)

// WriteArchive writes all of a tree as one tar archive, directories before what is in them, in the order of names.
func (t *Tree) WriteArchive(ctx context.Context, to io.Writer, sources func(int) *os.File) error {
	buffered := bufio.NewWriterSize(to, 1<<20)
	writer := archiveWriter{ctx, tar.NewWriter(buffered), sources, map[*Inode]string{}}
	if err := writer.directory("./", t.Root); err != nil {
		return err
	}
	return cmp.Or(writer.archive.Close(), buffered.Flush())
}

type archiveWriter struct {
	ctx     context.Context
	archive *tar.Writer
	sources func(int) *os.File
	written map[*Inode]string
}

func (w archiveWriter) directory(path string, directory *Inode) error {
	if err := w.entry(path, directory); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(directory.Children)) {
		inode := directory.Children[name]
		var err error
		if inode.Kind == Directory {
			err = w.directory(path+name+"/", inode)
		} else {
			err = w.entry(path+name, inode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var typeflags = map[Kind]byte{
	File: tar.TypeReg, Directory: tar.TypeDir, Symlink: tar.TypeSymlink,
	CharacterDevice: tar.TypeChar, BlockDevice: tar.TypeBlock, Fifo: tar.TypeFifo,
}

func (w archiveWriter) entry(path string, inode *Inode) error {
	if w.ctx.Err() != nil {
		return wire.Fail(wire.Cancelled, "cancelled")
	}
	header := &tar.Header{
		Format: tar.FormatPAX, Typeflag: typeflags[inode.Kind], Name: path, Linkname: inode.Target, Size: inode.Size,
		Mode: int64(inode.Mode), Uid: int(inode.UID), Gid: int(inode.GID), ModTime: inode.Changed,
		Devmajor: int64(inode.Major), Devminor: int64(inode.Minor),
	}
	if first, again := w.written[inode]; again {
		header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
	} else if len(inode.Xattrs) > 0 {
		header.PAXRecords = map[string]string{}
		for name, value := range inode.Xattrs {
			header.PAXRecords[xattrPrefix+name] = value
		}
	}
	if err := w.archive.WriteHeader(header); err != nil {
		return fmt.Errorf("%.200q: %w", path, err)
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	w.written[inode] = path
	return w.content(inode)
}

// content writes pieces, and zeros between them.
func (w archiveWriter) content(inode *Inode) error {
	at := int64(0)
	for _, piece := range inode.Content {
		if _, err := io.CopyN(w.archive, zeros{}, piece.At-at); err != nil {
			return err
		}
		source := io.NewSectionReader(w.sources(piece.Source), piece.Offset, piece.Length)
		if _, err := io.Copy(w.archive, source); err != nil {
			return err
		}
		at = piece.At + piece.Length
	}
	_, err := io.CopyN(w.archive, zeros{}, inode.Size-at)
	return err
}

type zeros struct{}

func (zeros) Read(buffer []byte) (int, error) {
	clear(buffer)
	return len(buffer), nil
}
