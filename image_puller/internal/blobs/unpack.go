package blobs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ingle.dev/image_puller/internal/wire"
)

const (
	// What is compressed better than that was made to fill disks: deflate itself reaches 1032.
	mostRatio = 250
	anyRatio  = 512 << 20 // up to so many bytes: a file of zeros is nothing to be afraid of
	// zstd's highest level needs 128 MiB, which is more than a pull has. Builders' use 8 at most.
	mostWindow = 32 << 20
	block      = 64 << 10
)

var zeros = make([]byte, block)

// unpack makes a plain tar archive of a layer, and verifies it. Zeros become holes.
func unpack(ctx context.Context, from *io.SectionReader, to string, diffID v1.Hash, most int64) (int64, error) {
	source := bufio.NewReaderSize(from, block)
	plain, done, err := decompressed(source)
	if err != nil {
		return 0, err
	}
	defer done()
	target, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, Written(err)
	}
	defer target.Close()
	size, err := write(ctx, plain, target, diffID, min(most, max(anyRatio, mostRatio*from.Size())))
	if err != nil {
		_ = os.Remove(to)
	}
	return size, err
}

// digestOf is that of a layer as it is in an archive.
func digestOf(ctx context.Context, from *io.SectionReader) (v1.Hash, error) {
	digest := sha256.New()
	for {
		_, err := io.CopyN(digest, from, 16<<20)
		if errors.Is(err, io.EOF) {
			break
		}
		if failed := errors.Join(err, ctx.Err()); failed != nil {
			return v1.Hash{}, failed
		}
	}
	_, err := from.Seek(0, io.SeekStart)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest.Sum(nil))}, err
}

func write(ctx context.Context, plain io.Reader, target *os.File, diffID v1.Hash, most int64) (int64, error) {
	const checkEvery = 16 << 20
	digest := sha256.New()
	buffer := make([]byte, block)
	var at, checked int64
	for {
		count, err := io.ReadFull(plain, buffer)
		piece := buffer[:count]
		if at+int64(count) > most {
			return 0, wire.Fail(wire.Invalid, "layer %s unpacks to more than the %d bytes that are allowed", diffID, most)
		}
		if at >= checked {
			if failed := errors.Join(Room(target.Name(), checkEvery), ctx.Err()); failed != nil {
				return 0, failed
			}
			checked = at + checkEvery
		}
		_, _ = digest.Write(piece) // never fails
		if count > 0 && !bytes.Equal(piece, zeros[:count]) {
			if _, failed := target.WriteAt(piece, at); failed != nil {
				return 0, Written(failed)
			}
		}
		at += int64(count)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break // a last piece is short; whether all is there, the hash tells
		}
		if err != nil {
			return 0, wire.Fail(wire.Invalid, "layer %s can't be decompressed: %v", diffID, err)
		}
	}
	if found := hex.EncodeToString(digest.Sum(nil)); found != diffID.Hex {
		return 0, wire.Fail(wire.Invalid, "a layer unpacks to sha256:%s; the image's configuration says %s", found, diffID)
	}
	if err := target.Truncate(at); err != nil {
		return 0, Written(err)
	}
	return at, Written(target.Sync())
}

// decompressed tells by the first bytes what it is: media types are wrong now and then.
func decompressed(source *bufio.Reader) (io.Reader, func(), error) {
	head, err := source.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		reader, err := gzip.NewReader(source)
		if err != nil {
			return nil, nil, wire.Fail(wire.Invalid, "a layer can't be decompressed: %v", err)
		}
		return reader, func() {}, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		reader, err := zstd.NewReader(source,
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(mostWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return reader, reader.Close, nil
	}
	return source, func() {}, nil
}
