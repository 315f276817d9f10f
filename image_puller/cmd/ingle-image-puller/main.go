// Command ingle-image-puller brings an image from a registry, or from an archive that somebody has sent: its layers into a
// cache, and all of them together into one tar archive. With the argument "export" it writes such an archive of an image
// that is here. What to do comes on stdin, what happens is told on stdout; package wire has both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/export"
	"ingle.dev/image_puller/internal/images"
	"ingle.dev/image_puller/internal/layers"
	"ingle.dev/image_puller/internal/registry"
	"ingle.dev/image_puller/internal/sent"
	"ingle.dev/image_puller/internal/wire"
)

// version is set by the linker.
var version = "unversioned"

func main() {
	showVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *showVersion {
		fmt.Println(version)
		return
	}
	syscall.Umask(0o077)
	log.SetOutput(os.Stderr)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	teller := wire.NewTeller(os.Stdout)
	work := run
	if flag.Arg(0) == "export" {
		work = exported
	}
	if err := work(ctx, teller); err != nil {
		var problem *wire.Problem
		if !errors.As(err, &problem) {
			problem = wire.Fail(wire.Internal, "%v", err)
		}
		teller.Tell(wire.Line{Problem: problem})
		os.Exit(1)
	}
}

func exported(ctx context.Context, _ *wire.Teller) error {
	order, err := wire.ReadExport(os.Stdin)
	if err != nil {
		return err
	}
	return export.Write(ctx, order)
}

func run(ctx context.Context, teller *wire.Teller) error {
	order, err := wire.Read(os.Stdin)
	if err != nil {
		return err
	}
	store, err := blobs.OpenStore(order.Cache)
	if err != nil {
		return blobs.Written(err)
	}
	puller := blobs.Puller{
		Store: store, Stall: time.Duration(order.StallSeconds) * time.Second, Most: order.MostBytes,
		Tell: func(layer wire.Layer) { teller.Tell(wire.Line{Layer: &layer}) },
	}
	image, name, done, err := find(ctx, order, teller, &puller)
	if err != nil {
		return err
	}
	defer done()
	defer puller.Close()
	fetched, err := puller.Pull(ctx, image.Layers)
	if err != nil {
		return err
	}
	teller.Tell(wire.Line{Note: "putting the layers together"})
	if err := flatten(ctx, order, &puller, image); err != nil {
		_ = os.Remove(order.Archive)
		return err
	}
	teller.Tell(wire.Line{Image: &wire.Image{
		Digest: image.Digest.String(), ConfigDigest: image.ConfigDigest.String(), Config: image.Config, Name: name,
		Fetched: fetched,
	}})
	return nil
}

// find has the image that is ordered, what an archive calls it, and tells the puller where its layers are.
func find(
	ctx context.Context, order wire.Order, teller *wire.Teller, puller *blobs.Puller,
) (*images.Image, string, func(), error) {
	if order.Sent == "" {
		found, err := registry.Find(ctx, order, func(note string) { teller.Tell(wire.Line{Note: note}) })
		if err != nil {
			return nil, "", nil, err
		}
		puller.Source = found
		return found.Image, "", func() {}, nil
	}
	archive, err := os.Open(order.Sent)
	if err != nil {
		return nil, "", nil, err
	}
	spill, err := puller.Store.Spill()
	if err != nil {
		archive.Close()
		return nil, "", nil, err
	}
	done := func() {
		archive.Close()
		spill.Close()
	}
	found, err := sent.Find(ctx, archive, spill, order.Reference, order.Architecture)
	if err != nil {
		done()
		return nil, "", nil, err
	}
	puller.Local = found
	return found.Image, found.Name, done, nil
}

func flatten(ctx context.Context, order wire.Order, puller *blobs.Puller, image *images.Image) error {
	spill, err := puller.Store.Spill()
	if err != nil {
		return err
	}
	defer spill.Close()
	tree := layers.NewTree(layers.Limits{Names: order.MostFiles, Bytes: order.MostBytes}, spill)
	for _, layer := range image.Layers {
		archive, err := layers.NewReader(puller.Layer(layer.DiffID))
		if err != nil {
			return err
		}
		if err := tree.Apply(ctx, archive); err != nil {
			return blobs.Written(err)
		}
	}
	archive, err := os.OpenFile(order.Archive, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return blobs.Written(err)
	}
	defer archive.Close()
	if err := blobs.Room(order.Archive, tree.Bytes()); err != nil {
		return err
	}
	return blobs.Written(tree.WriteArchive(ctx, archive, func(source int) *os.File {
		if source == layers.Spilled {
			return spill
		}
		return puller.Layer(image.Layers[source].DiffID)
	}))
}
