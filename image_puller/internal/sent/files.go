package sent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/layers"
	"ingle.dev/image_puller/internal/wire"
)

const (
	mostEntries = 100_000
	longestName = 4095
	mostNamed   = 16 << 20 // bytes of all names, which are kept in memory
	mostSparse  = 8 << 30  // of files with holes, whose zeros are read, too
	mostHops    = 8
	block       = 64 << 10
)

// files are those of an archive, by name: places in it, which nothing was unpacked from.
type files struct {
	places map[string]*io.SectionReader
	links  map[string]string
	named  int
	// spill takes the files that the archive has in pieces.
	spill   *os.File
	spilled int64
}

// list reads the headers of an archive. `spill` is an empty file.
func list(ctx context.Context, archive *os.File, spill *os.File) (*files, error) {
	seeker, err := layers.NewReader(archive)
	if err != nil {
		return nil, err
	}
	listed := &files{places: map[string]*io.SectionReader{}, links: map[string]string{}, spill: spill}
	reader := tar.NewReader(seeker)
	for count := 0; ; count++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return listed, nil
		}
		if err != nil {
			return nil, wire.Fail(wire.Invalid, "it is no tar archive, or a broken one: %v", err)
		}
		if count == mostEntries {
			return nil, wire.Fail(wire.Invalid, "it has more than the %d files that are allowed", mostEntries)
		}
		if ctx.Err() != nil {
			return nil, wire.Fail(wire.Cancelled, "cancelled")
		}
		if err := listed.entry(ctx, header, reader, seeker, archive); err != nil {
			return nil, err
		}
	}
}

func (f *files) entry(ctx context.Context, header *tar.Header, reader io.Reader, seeker io.Seeker, archive *os.File) error {
	name := path.Clean("/" + header.Name)
	if len(name) > longestName || len(header.Linkname) > longestName {
		return wire.Fail(wire.Invalid, "it has a name of %d bytes; %d are allowed", len(name), longestName)
	}
	if f.named += len(name) + len(header.Linkname); f.named > mostNamed {
		return wire.Fail(wire.Invalid, "its names have more than the %d bytes that are allowed", mostNamed)
	}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse: //nolint:staticcheck // what old archives have
		if layers.IsSparse(header) {
			return f.spread(ctx, name, header.Size, reader)
		}
		// The reader has read no more than the header.
		at, err := seeker.Seek(0, io.SeekCurrent)
		f.places[name] = io.NewSectionReader(archive, at, header.Size)
		return err
	case tar.TypeLink:
		f.links[name] = path.Clean("/" + header.Linkname)
	case tar.TypeSymlink:
		f.links[name] = path.Join(path.Dir(name), header.Linkname)
	}
	return nil
}

// spread puts the pieces of a file together.
func (f *files) spread(ctx context.Context, name string, size int64, reader io.Reader) error {
	begin := f.spilled
	if size < 0 || size > mostSparse-begin {
		return wire.Fail(wire.Invalid, "its files with holes have more than the %d bytes that are allowed", int64(mostSparse))
	}
	buffer, zeros := make([]byte, block), make([]byte, block)
	for f.spilled < begin+size {
		if ctx.Err() != nil {
			return wire.Fail(wire.Cancelled, "cancelled")
		}
		piece := buffer[:min(block, begin+size-f.spilled)]
		if _, err := io.ReadFull(reader, piece); err != nil {
			return wire.Fail(wire.Invalid, "it is truncated: %v", err)
		}
		if !bytes.Equal(piece, zeros[:len(piece)]) {
			if err := blobs.Room(filepath.Dir(f.spill.Name()), block); err != nil {
				return err
			}
			if _, err := f.spill.WriteAt(piece, f.spilled); err != nil {
				return blobs.Written(err)
			}
		}
		f.spilled += int64(len(piece))
	}
	if err := f.spill.Truncate(f.spilled); err != nil {
		return blobs.Written(err)
	}
	f.places[name] = io.NewSectionReader(f.spill, begin, size)
	return nil
}

// open finds a file, whatever links lead to it.
func (f *files) open(name string) (*io.SectionReader, bool) {
	name = path.Clean("/" + name)
	for range mostHops {
		if place, found := f.places[name]; found {
			return io.NewSectionReader(place, 0, place.Size()), true
		}
		next, found := f.links[name]
		if !found {
			return nil, false
		}
		name = next
	}
	return nil, false
}

// read is the content of a small file.
func (f *files) read(name string, most int64) ([]byte, error) {
	place, found := f.open(name)
	if !found {
		return nil, wire.Fail(wire.Invalid, "it lacks %.200q", strings.TrimPrefix(name, "/"))
	}
	if place.Size() > most {
		return nil, wire.Fail(wire.Invalid, "its %.200q has %d bytes; %d are allowed", name, place.Size(), most)
	}
	content, err := io.ReadAll(place)
	if err != nil {
		return nil, wire.Fail(wire.Invalid, "it is truncated: %v", err)
	}
	return content, nil
}
