// Package blobs keeps layers: fetched, verified, and unpacked to plain tar archives by the hash of what they hold. Many
// pulls may share one directory, and each may be killed at any instant.
//
//	fetching/PLACE    a layer as a repository has it, as far as it has come: a hash of both
//	layers/NAME       a whole layer, uncompressed: a hash of its registry, its digest there, and that of what it holds
//	layers/.NAME      one that is being unpacked
//	locks/NAME        held by who makes it
//	locks/.PLACE      held by who fetches it
//
// Layers, and what is fetched, are locked as well by who uses them. Anybody may say of a layer that it has some digest, or
// unpacks to some hash. So nobody waits for a repository other than the own, or goes on with what another has sent; and a
// layer is there for who has shown to have it: by an image of that very registry, which takes none without its layers, or by
// an archive with all of its bytes. To know the hashes of what somebody has pulled with a login is not enough.
package blobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"ingle.dev/image_puller/internal/wire"
)

// leftFree is what a pull leaves to whoever else writes to the disk; the server leaves as much.
const leftFree = 64 << 20

// Store is such a directory.
type Store struct{ root string }

// OpenStore makes what is missing of it.
func OpenStore(root string) (*Store, error) {
	for _, name := range []string{"fetching", "layers", "locks"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			return nil, err
		}
	}
	return &Store{root}, nil
}

// Spill is a new file without a name.
func (s *Store) Spill() (*os.File, error) {
	file, err := os.CreateTemp(filepath.Join(s.root, "layers"), ".spill-")
	if err != nil {
		return nil, Written(err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Layer is where a layer is, when it is there.
func (s *Store) Layer(name string) string { return filepath.Join(s.root, "layers", name) }

func (s *Store) unpacking(name string) string { return filepath.Join(s.root, "layers", "."+name) }

func (s *Store) fetching(place string) string { return filepath.Join(s.root, "fetching", place) }

// placeOf names a layer in a repository.
func placeOf(repository string, digest v1.Hash) string { return hashed(repository, digest.String()) }

// nameOf names a layer of a registry; none: of an archive.
func nameOf(registry string, layer Wanted) string {
	return hashed(registry, layer.Digest.String(), layer.DiffID.String())
}

func hashed(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// use opens a layer that is there, and says when it was used last: what is not used is deleted first. Whoever has it open
// holds it: nobody deletes it, and who deletes all regardless takes nothing away.
func (s *Store) use(name string) (*os.File, bool) {
	file, err := hold(s.Layer(name), os.O_RDONLY)
	if err != nil {
		return nil, false
	}
	now := time.Now()
	if os.Chtimes(s.Layer(name), now, now) != nil {
		file.Close()
		return nil, false
	}
	return file, true
}

// hold opens a file so that it is not deleted by those who ask; see api_server's adapters/rootfs/layer_cache.py.
func hold(path string, flags int) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			return nil, Written(err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil {
			file.Close()
			return nil, err
		}
		if isAt(file, path) { // it may have been deleted just before
			return file, nil
		}
		file.Close()
	}
}

// lock waits until nobody else makes, or fetches, what has that name.
func (s *Store) lock(ctx context.Context, name string) (*os.File, error) {
	const interval = 100 * time.Millisecond
	path := filepath.Join(s.root, "locks", name)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, Written(err)
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(file, path) {
			return file, nil
		}
		file.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(interval):
		}
	}
}

// isAt tells whether a file has its name still: those that nobody holds are deleted.
func isAt(file *os.File, path string) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// Room is a Problem unless a directory's file system takes so many bytes and has some left.
func Room(directory string, size int64) error {
	var facts unix.Statfs_t
	if err := unix.Statfs(directory, &facts); err != nil {
		return fmt.Errorf("%s: %w", directory, err)
	}
	if free := int64(facts.Bavail) * facts.Bsize; free < size+leftFree {
		return wire.Fail(wire.DiskFull, "no space left at %s but the %d MiB that are kept for others", directory, leftFree>>20)
	}
	return nil
}

// Written makes a Problem of what a full disk says.
func Written(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return wire.Fail(wire.DiskFull, "the disk is full: %v", err)
	}
	return err
}
