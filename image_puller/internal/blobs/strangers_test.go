package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ingle.dev/image_puller/internal/wire"
)

func TestAnotherRepositoryIsNeitherWaitedForNorGoneOnWith(t *testing.T) {
	root, plain := t.TempDir(), noise(200_000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begun, ended := make(chan struct{}), make(chan struct{})
	hostile := &source{where: "hostile.example/x", serve: func(ctx context.Context, _ int, _ []byte, _ int64) (io.Reader, int64) {
		return io.MultiReader(bytes.NewReader(make([]byte, 100_000)), tells{begun}, silence{ctx}), 0
	}}
	honest := &source{where: "honest.example/x"}
	layer := honest.add(t, plain, plain)
	hostile.add(t, plain, plain)
	go func() {
		defer close(ended)
		_, _, _ = pull(t, ctx, root, hostile, time.Minute, layer)
	}()
	<-begun
	if _, _, err := pull(t, ctx, root, honest, stall, layer); err != nil {
		t.Error(err)
	}
	if len(honest.offsets) != 1 || honest.offsets[0] != 0 {
		t.Errorf("gone on from %v", honest.offsets)
	}
	cancel()
	<-ended
	if content, err := os.ReadFile(filepath.Join(root, "layers", nameOf(honest.Registry(), layer))); err != nil || !bytes.Equal(content, plain) {
		t.Errorf("has %d bytes: %v", len(content), err)
	}
}

func TestToKnowALayersHashesIsNotToHaveIt(t *testing.T) {
	root, secret := t.TempDir(), noise(10_000)
	private := &source{where: "private.example/app"}
	layer := private.add(t, secret, gzipped(secret))
	if _, _, err := pull(t, context.Background(), root, private, stall, layer); err != nil {
		t.Fatal(err)
	}
	other := Wanted{hashOf(t, []byte("other")), 5, layer.DiffID}
	for name, test := range map[string]struct {
		from   *source
		wanted Wanted
	}{
		"at another registry":              {&source{where: "own.example/app"}, layer},
		"as another blob of that registry": {&source{where: "private.example/own", blobs: map[v1.Hash][]byte{other.Digest: []byte("other")}}, other},
	} {
		if _, _, err := pull(t, context.Background(), root, test.from, stall, test.wanted); err == nil {
			t.Errorf("%s: had", name)
		}
	}
	store, err := OpenStore(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []Wanted{layer, {v1.Hash{}, 5, layer.DiffID}} {
		puller := Puller{Store: store, Local: sent("other"), Most: 1 << 30, Tell: func(wire.Layer) {}}
		if _, err := puller.Pull(context.Background(), []Wanted{wanted}); err == nil {
			t.Error("in an archive: had")
		}
		puller.Close()
	}
	private.where = "private.example/another"
	if _, fetched, err := pull(t, context.Background(), root, private, stall, layer); err != nil || fetched != 0 {
		t.Errorf("at its registry %d bytes were fetched: %v", fetched, err)
	}
}

// sent is an archive of one layer.
type sent string

func (s sent) Section(Wanted) (*io.SectionReader, error) {
	return io.NewSectionReader(strings.NewReader(string(s)), 0, int64(len(s))), nil
}

func (sent) Problem(_ context.Context, err error) *wire.Problem {
	return wire.Fail(wire.Internal, "%v", err)
}

type tells struct{ begun chan struct{} }

func (t tells) Read([]byte) (int, error) {
	close(t.begun)
	return 0, io.EOF
}

func TestARegistryThatNeverEndsIsLeft(t *testing.T) {
	plain := noise(200_000)
	root, from := t.TempDir(), &source{serve: func(ctx context.Context, _ int, content []byte, offset int64) (io.Reader, int64) {
		return trickle{ctx, bytes.NewReader(content[offset:])}, offset
	}}
	_, _, err := pull(t, context.Background(), root, from, 50*time.Millisecond, from.add(t, plain, plain))
	var problem *wire.Problem
	if !errors.As(err, &problem) || problem.Reason != wire.Unreachable || !strings.Contains(problem.Message, "next to nothing") {
		t.Errorf("said %v", err)
	}
}

// trickle has one more byte now and then.
type trickle struct {
	ctx     context.Context
	content io.Reader
}

func (t trickle) Read(into []byte) (int, error) {
	select {
	case <-time.After(10 * time.Millisecond):
		return t.content.Read(into[:1])
	case <-t.ctx.Done():
		return 0, t.ctx.Err()
	}
}
