package blobs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"ingle.dev/image_puller/internal/wire"
)

// As many at once as docker fetches; a decompressor has so much memory that there are fewer of those.
const (
	atOnce       = 3
	unpackAtOnce = 2
	tellEvery    = 500 * time.Millisecond
)

// Wanted is a layer that shall be there. Where a local source has no digest of it, that is zero.
type Wanted struct {
	Digest v1.Hash
	Size   int64
	DiffID v1.Hash
}

// Puller brings the layers of one image.
type Puller struct {
	Store  *Store
	Source Source
	Local  Local // in the place of Source
	Stall  time.Duration
	Tell   func(wire.Layer)
	Most   int64

	mutex    sync.Mutex
	opened   map[v1.Hash]*os.File
	held     atomic.Int64
	fetched  atomic.Int64
	unpacked chan struct{}
}

// Layer is one that was pulled. It is open, whatever becomes of the store.
func (p *Puller) Layer(diffID v1.Hash) *os.File { return p.opened[diffID] }

// Close lets go of all of them.
func (p *Puller) Close() {
	for _, file := range p.opened {
		file.Close()
	}
}

// keep has a layer until Close.
func (p *Puller) keep(diffID v1.Hash, file *os.File) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if former := p.opened[diffID]; former != nil {
		former.Close()
	}
	p.opened[diffID] = file
}

// Pull has all of them in the store, and answers how many bytes came from the registry.
func (p *Puller) Pull(ctx context.Context, layers []Wanted) (int64, error) {
	p.opened = map[v1.Hash]*os.File{}
	p.unpacked = make(chan struct{}, unpackAtOnce)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	var total int64
	for number, layer := range layers {
		if total += layer.Size; total > p.Most || total < 0 {
			return 0, wire.Fail(wire.Invalid, "its layers have more than the %d bytes that are allowed", p.Most)
		}
		group.Go(func() error {
			told := wire.Layer{Number: number + 1, Count: len(layers), Digest: layer.Digest.String(), Size: layer.Size}
			return p.one(ctx, layer, told)
		})
	}
	err := group.Wait()
	return p.fetched.Load(), err
}

func (p *Puller) one(ctx context.Context, layer Wanted, told wire.Layer) error {
	if p.Local != nil {
		return p.local(ctx, layer, told)
	}
	name := nameOf(p.Source.Registry(), layer)
	if file, found := p.Store.use(name); found {
		return p.cached(layer, told, file)
	}
	place := placeOf(p.Source.Repository(), layer.Digest)
	lock, err := p.Store.lock(ctx, "."+place)
	if err != nil {
		return p.waited(ctx, err)
	}
	defer lock.Close()
	if file, found := p.Store.use(name); found {
		return p.cached(layer, told, file)
	}
	from := p.Store.fetching(place)
	fetched, err := hold(from, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer fetched.Close()
	if err := p.fetch(ctx, layer, told, from); err != nil {
		return err
	}
	err = p.unpack(ctx, name, layer, told, io.NewSectionReader(fetched, 0, layer.Size))
	var problem *wire.Problem
	if err == nil || errors.As(err, &problem) && problem.Reason == wire.Invalid {
		_ = os.Remove(from) // of what is invalid nothing better comes another time
	}
	return err
}

// local takes a layer that is in an archive, all of it.
func (p *Puller) local(ctx context.Context, layer Wanted, told wire.Layer) error {
	section, err := p.Local.Section(layer)
	if err != nil {
		return err
	}
	digest, err := digestOf(ctx, section)
	if err != nil {
		return p.problem(ctx, err)
	}
	if layer.Digest != (v1.Hash{}) && layer.Digest != digest {
		return wire.Fail(wire.Invalid, "there is something else in the place of %s", layer.Digest)
	}
	layer.Digest, told.Digest = digest, digest.String()
	name := nameOf("", layer)
	if file, found := p.Store.use(name); found {
		return p.cached(layer, told, file)
	}
	return p.unpack(ctx, name, layer, told, section)
}

// waited is why there is no lock: that is no doing of the source's, unless somebody has cancelled.
func (p *Puller) waited(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return p.problem(ctx, err)
	}
	return err
}

func (p *Puller) problem(ctx context.Context, err error) *wire.Problem {
	if p.Local != nil {
		return p.Local.Problem(ctx, err)
	}
	return p.Source.Problem(ctx, err)
}

func (p *Puller) cached(layer Wanted, told wire.Layer, file *os.File) error {
	p.keep(layer.DiffID, file)
	facts, err := file.Stat()
	if err != nil {
		return err
	}
	told.State, told.Bytes = wire.Cached, told.Size
	p.Tell(told)
	return p.hold(facts.Size())
}

// hold counts what all layers hold together.
func (p *Puller) hold(size int64) error {
	if p.held.Add(size) > p.Most {
		return wire.Fail(wire.Invalid, "its layers unpack to more than the %d bytes that are allowed", p.Most)
	}
	return nil
}

func (p *Puller) fetch(ctx context.Context, layer Wanted, told wire.Layer, path string) error {
	var last sync.Once
	var when time.Time
	came, err := fetch(ctx, p.Source, layer.Digest, layer.Size, path, p.Stall, func(at int64) {
		told.State, told.Bytes = wire.Fetching, at
		if now := time.Now(); now.Sub(when) >= tellEvery {
			when = now
			p.Tell(told)
		} else if at == layer.Size {
			last.Do(func() { p.Tell(told) })
		}
	})
	p.fetched.Add(came)
	return err
}

func (p *Puller) unpack(
	ctx context.Context, name string, layer Wanted, told wire.Layer, from *io.SectionReader,
) error {
	select {
	case p.unpacked <- struct{}{}:
		defer func() { <-p.unpacked }()
	case <-ctx.Done():
		return p.problem(ctx, ctx.Err())
	}
	lock, err := p.Store.lock(ctx, name)
	if err != nil {
		return p.waited(ctx, err)
	}
	defer lock.Close()
	if file, found := p.Store.use(name); found {
		return p.cached(layer, told, file)
	}
	told.State, told.Bytes = wire.Unpacking, layer.Size
	p.Tell(told)
	to := p.Store.unpacking(name)
	size, err := unpack(ctx, from, to, layer.DiffID, p.Most)
	if err != nil {
		if ctx.Err() != nil {
			return p.problem(ctx, err)
		}
		return err
	}
	file, err := hold(to, os.O_RDONLY) // before it can be found
	if err != nil {
		return err
	}
	p.keep(layer.DiffID, file)
	if err := publish(to, p.Store.Layer(name)); err != nil {
		return err
	}
	told.State = wire.Ready
	p.Tell(told)
	return p.hold(size)
}

// publish has a whole file under its name, whatever happens then.
func publish(from string, to string) error {
	if err := os.Rename(from, to); err != nil {
		return Written(err)
	}
	directory, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer directory.Close()
	return Written(directory.Sync())
}
