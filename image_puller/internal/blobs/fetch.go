package blobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"ingle.dev/image_puller/internal/wire"
)

const (
	portion      = 256 << 10
	mostAttempts = 5        // in a row that bring next to nothing
	leastCame    = 64 << 10 // in the time that a registry may say nothing: less is a registry that never ends
	firstPause   = 200 * time.Millisecond
)

// Source is where blobs come from.
type Source interface {
	// Open asks for a blob from an offset on, and answers from where on it comes: the offset, or 0.
	Open(ctx context.Context, digest v1.Hash, offset int64) (io.ReadCloser, int64, error)
	// Registry is that of the repository.
	Registry() string
	// Repository is where they are, in full.
	Repository() string
	// Problem tells what went wrong there.
	Problem(ctx context.Context, err error) *wire.Problem
}

// Local is where blobs are already.
type Local interface {
	// Section is a layer as it was made, perhaps compressed.
	Section(layer Wanted) (*io.SectionReader, error)
	// Problem tells what went wrong there.
	Problem(ctx context.Context, err error) *wire.Problem
}

// fetch brings a blob into a file, goes on with what is there of it, and verifies it. It answers how much came.
func fetch(
	ctx context.Context, source Source, digest v1.Hash, size int64, path string, stall time.Duration, progress func(int64),
) (int64, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, Written(err)
	}
	defer file.Close()
	target := &target{file: file, path: path, size: size, digest: sha256.New(), progress: progress}
	if err := target.resume(); err != nil {
		return 0, err
	}
	pause := firstPause
	for attempt := 1; target.at < size; attempt++ {
		before := target.at
		err := receive(ctx, source, digest, target, stall)
		if err == nil {
			continue
		}
		if !passing(err) || ctx.Err() != nil {
			return target.came, source.Problem(ctx, err)
		}
		if target.at >= before+leastCame {
			attempt, pause = 0, firstPause
		}
		if attempt >= mostAttempts {
			return target.came, source.Problem(ctx, fmt.Errorf("%s: tried %d times: %w", digest, attempt, err))
		}
		select {
		case <-ctx.Done():
			return target.came, source.Problem(ctx, ctx.Err())
		case <-time.After(pause):
			pause *= 2
		}
	}
	if found := hex.EncodeToString(target.digest.Sum(nil)); found != digest.Hex {
		_ = os.Remove(path)
		return target.came, wire.Fail(wire.Invalid, "the registry sent something else in the place of %s", digest)
	}
	return target.came, nil
}

// passing tells whether it may go better the next time.
func passing(err error) bool {
	var problem *wire.Problem
	if errors.As(err, &problem) {
		return false
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.StatusCode >= 500 || answer.StatusCode == 429
	}
	return true
}

// receive takes what one answer brings. A registry that says next to nothing for as long as `stall` is left.
func receive(ctx context.Context, source Source, digest v1.Hash, target *target, stall time.Duration) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stalled := fmt.Errorf("the registry said nothing, or next to nothing, for %s", stall)
	watch := time.AfterFunc(2*stall, func() { stop(stalled) })
	defer watch.Stop()
	body, from, err := source.Open(ctx, digest, target.at)
	if err == nil {
		defer body.Close()
		err = target.from(from)
	}
	buffer := make([]byte, portion)
	watched := target.at
	watch.Reset(stall)
	for err == nil && target.at < target.size {
		if target.at >= watched+leastCame {
			watched = target.at
			watch.Reset(stall)
		}
		var count int
		count, err = body.Read(buffer[:min(portion, target.size-target.at)])
		if failed := target.add(buffer[:count]); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) && target.at < target.size {
			err = io.ErrUnexpectedEOF
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err != nil && errors.Is(context.Cause(ctx), stalled) {
		return stalled
	}
	return err
}

// target is the file that a blob comes into.
type target struct {
	file     *os.File
	path     string
	size     int64
	at       int64
	came     int64
	digest   hash.Hash
	checked  int64
	progress func(int64)
}

// resume reads what an earlier pull has left.
func (t *target) resume() error {
	facts, err := t.file.Stat()
	if err != nil {
		return err
	}
	if facts.Size() > t.size {
		return t.from(0)
	}
	t.at, err = io.Copy(t.digest, t.file)
	t.progress(t.at)
	return err
}

// from throws away what is there when the registry begins at the beginning.
func (t *target) from(offset int64) error {
	if offset == t.at {
		return nil
	}
	t.at, t.checked = 0, 0
	t.digest.Reset()
	return t.file.Truncate(0)
}

func (t *target) add(data []byte) error {
	const checkEvery = 16 << 20
	if t.checked == 0 || t.at > t.checked+checkEvery {
		if err := Room(t.path, min(checkEvery, t.size-t.at)); err != nil {
			return err
		}
		t.checked = max(t.at, 1)
	}
	if _, err := t.file.WriteAt(data, t.at); err != nil {
		return wire.Fail(wire.DiskFull, "%v", err)
	}
	_, _ = t.digest.Write(data) // never fails
	t.at += int64(len(data))
	t.came += int64(len(data))
	t.progress(t.at)
	return nil
}
