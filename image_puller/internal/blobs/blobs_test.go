package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ingle.dev/image_puller/internal/wire"
)

const stall = 5 * time.Second

// source has blobs, and what a test does to those who ask for them.
type source struct {
	mutex   sync.Mutex
	blobs   map[v1.Hash][]byte
	offsets []int64
	where   string
	// serve answers what comes of a request: the content from `offset` on unless it is nil.
	serve func(ctx context.Context, request int, content []byte, offset int64) (io.Reader, int64)
}

func (s *source) Open(ctx context.Context, digest v1.Hash, offset int64) (io.ReadCloser, int64, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.offsets = append(s.offsets, offset)
	content, found := s.blobs[digest]
	if !found {
		return nil, 0, wire.Fail(wire.NotFound, "no %s", digest)
	}
	if s.serve == nil {
		return io.NopCloser(bytes.NewReader(content[offset:])), offset, nil
	}
	reader, from := s.serve(ctx, len(s.offsets), content, offset)
	return io.NopCloser(reader), from, nil
}

func (s *source) Repository() string { return s.where }

func (s *source) Registry() string { return strings.Split(s.where, "/")[0] }

func (s *source) Problem(ctx context.Context, err error) *wire.Problem {
	var problem *wire.Problem
	if errors.As(err, &problem) {
		return problem
	}
	if ctx.Err() != nil {
		return wire.Fail(wire.Cancelled, "cancelled")
	}
	return wire.Fail(wire.Unreachable, "%v", err)
}

func hashOf(t *testing.T, content []byte) v1.Hash {
	t.Helper()
	hash, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func noise(size int) []byte {
	made := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(made)
	return made
}

func gzipped(content []byte) []byte {
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	_, _ = writer.Write(content)
	_ = writer.Close()
	return compressed.Bytes()
}

func zstded(content []byte) []byte {
	writer, _ := zstd.NewWriter(nil)
	return writer.EncodeAll(content, nil)
}

// pull has layers in a store, each as compressed as it is told.
func pull(t *testing.T, ctx context.Context, root string, from *source, patience time.Duration, layers ...Wanted) ([]wire.Layer, int64, error) {
	t.Helper()
	store, err := OpenStore(root)
	if err != nil {
		t.Fatal(err)
	}
	var mutex sync.Mutex
	var told []wire.Layer
	puller := Puller{Store: store, Source: from, Stall: patience, Most: 8 << 30, Tell: func(layer wire.Layer) {
		mutex.Lock()
		defer mutex.Unlock()
		told = append(told, layer)
	}}
	fetched, err := puller.Pull(ctx, layers)
	return told, fetched, err
}

func (s *source) add(t *testing.T, plain []byte, compressed []byte) Wanted {
	t.Helper()
	digest := hashOf(t, compressed)
	if s.blobs == nil {
		s.blobs = map[v1.Hash][]byte{}
	}
	s.blobs[digest] = compressed
	return Wanted{digest, int64(len(compressed)), hashOf(t, plain)}
}

func assertHas(t *testing.T, root string, layer Wanted, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(root, "layers", nameOf("", layer)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the layer is not what it should be: %v", err)
	}
	for _, directory := range []string{"fetching", "layers"} {
		left, _ := filepath.Glob(filepath.Join(root, directory, ".*"))
		if directory == "fetching" {
			left, _ = filepath.Glob(filepath.Join(root, directory, "*"))
		}
		if len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
}

func TestLayersOfEveryCompressionComeOnceAndStay(t *testing.T) {
	root, from := t.TempDir(), &source{}
	plain := append(noise(300_000), make([]byte, 500_000)...)
	var layers []Wanted
	for number, compress := range []func([]byte) []byte{gzipped, zstded, bytes.Clone} {
		plain[0] = byte(number)
		layers = append(layers, from.add(t, plain, compress(plain)))
	}
	layers = append(layers, layers[0]) // an image may have a layer twice
	_, fetched, err := pull(t, context.Background(), root, from, stall, layers...)
	if err != nil {
		t.Fatal(err)
	}
	if want := layers[0].Size + layers[1].Size + layers[2].Size; fetched != want {
		t.Errorf("%d bytes came; %d are there", fetched, want)
	}
	for number, layer := range layers[:3] {
		plain[0] = byte(number)
		assertHas(t, root, layer, plain)
	}
	told, fetched, err := pull(t, context.Background(), root, from, stall, layers...)
	if err != nil || fetched != 0 || len(told) != len(layers) || told[0].State != wire.Cached {
		t.Errorf("the second time: %v %d %v", told, fetched, err)
	}
}

func TestWhatBreaksOffIsGoneOnWith(t *testing.T) {
	plain := noise(100_000)
	for name, serve := range map[string]func(ctx context.Context, request int, content []byte, offset int64) (io.Reader, int64){
		"breaking off": func(_ context.Context, _ int, content []byte, offset int64) (io.Reader, int64) {
			return io.LimitReader(bytes.NewReader(content[offset:]), 30_000), offset
		},
		"from the beginning each time": func(_ context.Context, request int, content []byte, _ int64) (io.Reader, int64) {
			return io.LimitReader(bytes.NewReader(content), int64(request)*30_000), 0
		},
		"silent": func(ctx context.Context, request int, content []byte, offset int64) (io.Reader, int64) {
			if request > 3 {
				return bytes.NewReader(content[offset:]), offset
			}
			return io.MultiReader(io.LimitReader(bytes.NewReader(content[offset:]), 20_000), silence{ctx}), offset
		},
		"endless": func(_ context.Context, _ int, content []byte, offset int64) (io.Reader, int64) {
			return io.MultiReader(bytes.NewReader(content[offset:]), zeroes{}), offset
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, from := t.TempDir(), &source{serve: serve}
			layer := from.add(t, plain, plain)
			if _, _, err := pull(t, context.Background(), root, from, 50*time.Millisecond, layer); err != nil {
				t.Fatal(err)
			}
			assertHas(t, root, layer, plain)
		})
	}
}

type silence struct{ ctx context.Context }

func (s silence) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

type zeroes struct{}

func (zeroes) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}

func TestAnotherPullGoesOnWithWhatACancelledOneHas(t *testing.T) {
	plain := noise(200_000)
	root, ctx, cancel := t.TempDir(), context.Background(), func() {}
	ctx, cancel = context.WithCancel(ctx)
	from := &source{serve: func(ctx context.Context, _ int, content []byte, offset int64) (io.Reader, int64) {
		return io.MultiReader(bytes.NewReader(content[:150_000]), cancels{cancel}, silence{ctx}), offset
	}}
	layer := from.add(t, plain, plain)
	_, _, err := pull(t, ctx, root, from, stall, layer)
	var problem *wire.Problem
	if !errors.As(err, &problem) || problem.Reason != wire.Cancelled {
		t.Fatalf("said %v", err)
	}
	from.serve = nil
	_, fetched, err := pull(t, context.Background(), root, from, stall, layer)
	if err != nil || fetched != 50_000 || from.offsets[len(from.offsets)-1] != 150_000 {
		t.Errorf("%d bytes came, from %v on: %v", fetched, from.offsets, err)
	}
	assertHas(t, root, layer, plain)
}

type cancels struct{ cancel context.CancelFunc }

func (c cancels) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}

func TestWhatIsNotWhatItShouldBeIsRefusedAndNotKept(t *testing.T) {
	plain := noise(50_000)
	other := noise(50_001)[1:]
	bomb := make([]byte, anyRatio+block)
	for name, test := range map[string]struct {
		plain, sent []byte
		change      func(*source, *Wanted)
		reason      wire.Reason
		said        string
	}{
		"another blob":               {plain, plain, func(s *source, w *Wanted) { s.blobs[w.Digest] = other }, wire.Invalid, "something else in the place of"},
		"another content":            {plain, gzipped(other), nil, wire.Invalid, "configuration says"},
		"cut within its compression": {plain, gzipped(plain)[:20_000], nil, wire.Invalid, "configuration says"},
		"noise that says it is gzip": {plain, append([]byte{0x1f, 0x8b}, other...), nil, wire.Invalid, "can't be decompressed"},
		"noise that says it is zstd": {plain, append([]byte{0x28, 0xb5, 0x2f, 0xfd}, other...), nil, wire.Invalid, "can't be decompressed"},
		"a bomb":                     {bomb, zstded(bomb), nil, wire.Invalid, "unpacks to more than"},
		"not there":                  {plain, plain, func(s *source, _ *Wanted) { clear(s.blobs) }, wire.NotFound, "no sha256:"},
		"less than it is said to be": {plain, plain, func(_ *source, w *Wanted) { w.Size++ }, wire.Unreachable, "tried 5 times"},
		"more than is allowed":       {plain, plain, func(_ *source, w *Wanted) { w.Size = 9 << 30 }, wire.Invalid, "that are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			root, from := t.TempDir(), &source{}
			layer := from.add(t, test.plain, test.sent)
			if test.change != nil {
				test.change(from, &layer)
			}
			_, _, err := pull(t, context.Background(), root, from, stall, layer)
			var problem *wire.Problem
			if !errors.As(err, &problem) || problem.Reason != test.reason || !strings.Contains(problem.Message, test.said) {
				t.Errorf("said %v", err)
			}
			if layers, _ := os.ReadDir(filepath.Join(root, "layers")); len(layers) > 0 {
				t.Errorf("kept %v", layers)
			}
		})
	}
}

func TestPullsOfTheSameLayerAtOnceFetchItOnce(t *testing.T) {
	root, from, plain := t.TempDir(), &source{}, noise(1<<20)
	layer := from.add(t, plain, gzipped(plain))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, _, err := pull(t, context.Background(), root, from, stall, layer); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(from.offsets) != 1 {
		t.Errorf("fetched %d times", len(from.offsets))
	}
	assertHas(t, root, layer, plain)
}

func TestZerosOfALayerTakeNoRoom(t *testing.T) {
	root, from, plain := t.TempDir(), &source{}, make([]byte, 64<<20)
	layer := from.add(t, plain, gzipped(plain))
	if _, _, err := pull(t, context.Background(), root, from, stall, layer); err != nil {
		t.Fatal(err)
	}
	assertHas(t, root, layer, plain)
	var facts, err = os.Stat(filepath.Join(root, "layers", nameOf("", layer)))
	if err != nil {
		t.Fatal(err)
	}
	if blocks := blocksOf(facts); blocks > 1<<20 {
		t.Errorf("takes %d bytes", blocks)
	}
}
