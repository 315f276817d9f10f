// Package sent finds an image in an archive that somebody has sent: an OCI layout, or what `docker save` writes. It may
// have been written by anybody.
package sent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/images"
	"ingle.dev/image_puller/internal/wire"
)

const (
	indexFile    = "index.json"
	manifestFile = "manifest.json"

	// What tools call an image in a layout: the whole name by containerd, docker and podman; a tag by most others.
	wholeName = "io.containerd.image.name"
	refName   = "org.opencontainers.image.ref.name"

	mostTold      = 20
	longestCalled = 4096 // much more than any name that can be kept
)

// Image is one of an archive.
type Image struct {
	*images.Image
	// Name is what the archive calls it, or nothing.
	Name string

	files  *files
	places map[v1.Hash]string // of layers, by their hash unpacked
}

// Find takes the image that an archive calls so; its only one if `wanted` is empty. `spill` is an empty file.
func Find(ctx context.Context, archive *os.File, spill *os.File, wanted string, architecture string) (*Image, error) {
	listed, err := list(ctx, archive, spill)
	if err != nil {
		return nil, err
	}
	image := &Image{files: listed, places: map[v1.Hash]string{}}
	switch {
	case has(listed, indexFile):
		err = image.ofLayout(ctx, wanted, architecture)
	case has(listed, manifestFile):
		err = image.ofDocker(wanted)
	default:
		err = wire.Fail(wire.Invalid,
			"it has neither %s, as OCI's layout has, nor %s, as docker save writes it", indexFile, manifestFile)
	}
	if err == nil && len(image.Name) > longestCalled {
		err = wire.Fail(wire.Invalid, "it calls its image by %d bytes; %d are allowed", len(image.Name), longestCalled)
	}
	return image, err
}

func has(listed *files, name string) bool {
	_, found := listed.open(name)
	return found
}

func (i *Image) ofLayout(ctx context.Context, wanted string, architecture string) error {
	content, err := i.files.read(indexFile, images.MostOfDocument)
	if err != nil {
		return err
	}
	var index v1.IndexManifest
	if err := images.Read(content, &index); err != nil {
		return wire.Fail(wire.Invalid, "its %s can't be read: %v", indexFile, err)
	}
	descriptor, err := one(index.Manifests, wanted, architecture)
	if err != nil {
		return err
	}
	i.Name = nameOf(descriptor)
	content, err = i.document(ctx, descriptor)
	if err != nil {
		return err
	}
	said := i.Name
	if said == "" {
		said = "the image"
	}
	manifest, digest, err := images.Resolve(ctx, said, architecture, descriptor, content, i.document)
	if err != nil {
		return err
	}
	if i.Image, err = images.Describe(ctx, manifest, digest, i.document); err != nil {
		return err
	}
	for _, layer := range i.Layers {
		i.places[layer.DiffID] = blob(layer.Digest)
	}
	return nil
}

// one is that which is wanted of a layout's images. Several of other architectures under one name are one.
func one(entries []v1.Descriptor, wanted string, architecture string) (v1.Descriptor, error) {
	var fit []v1.Descriptor
	var names []string
	platforms := true
	for _, entry := range entries {
		if !entry.MediaType.IsImage() && !entry.MediaType.IsIndex() {
			continue
		}
		if said := nameOf(entry); said != "" && !slices.Contains(names, said) {
			names = append(names, said)
		}
		if wanted != "" && !called(entry, wanted) || slices.ContainsFunc(fit, func(other v1.Descriptor) bool { return other.Digest == entry.Digest }) {
			continue
		}
		fit = append(fit, entry)
		platforms = platforms && entry.Platform != nil
	}
	there := "it has " + listing(names)
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) == 0 && wanted != "":
		return v1.Descriptor{}, wire.Fail(wire.NotFound, "no image %.200q is in it; %s", wanted, there)
	case len(fit) == 0:
		return v1.Descriptor{}, wire.Fail(wire.Invalid, "it has no image that can be read")
	case platforms && (wanted != "" || len(names) <= 1):
		return images.Choose(fit, "the image", architecture)
	}
	return v1.Descriptor{}, wire.Fail(wire.BadReference, "it has %d images, say which; %s", len(fit), there)
}

func listing(names []string) string {
	if len(names) == 0 {
		return "none with a name"
	}
	shown := names[:min(len(names), mostTold)]
	return strings.Join(shown, ", ")
}

func nameOf(entry v1.Descriptor) string {
	if said := entry.Annotations[wholeName]; said != "" {
		return said
	}
	return entry.Annotations[refName]
}

func called(entry v1.Descriptor, wanted string) bool {
	return wanted == entry.Digest.String() || same(entry.Annotations[wholeName], wanted) || same(entry.Annotations[refName], wanted)
}

// same tells whether both are one reference, in full or as docker shortens it.
func same(said string, wanted string) bool {
	if said == wanted || said == "" {
		return said == wanted
	}
	one, failed := name.ParseReference(said)
	other, alike := name.ParseReference(wanted)
	return failed == nil && alike == nil && strings.ContainsAny(said, ":/") && one.Name() == other.Name()
}

func blob(digest v1.Hash) string { return fmt.Sprintf("blobs/%s/%s", digest.Algorithm, digest.Hex) }

// document is a small blob, with the digest that it must have.
func (i *Image) document(_ context.Context, descriptor v1.Descriptor) ([]byte, error) {
	content, err := i.files.read(blob(descriptor.Digest), images.MostOfDocument)
	if err != nil {
		return nil, err
	}
	found, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if found != descriptor.Digest {
		return nil, wire.Fail(wire.Invalid, "it has something else in the place of %s", descriptor.Digest)
	}
	return content, nil
}

// saved is an image in docker's own list.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (i *Image) ofDocker(wanted string) error {
	content, err := i.files.read(manifestFile, images.MostOfDocument)
	if err != nil {
		return err
	}
	var all []saved
	if err := images.Read(content, &all); err != nil {
		return wire.Fail(wire.Invalid, "its %s can't be read: %v", manifestFile, err)
	}
	chosen, err := oneSaved(all, wanted)
	if err != nil {
		return err
	}
	content, err = i.files.read(chosen.Config, images.MostOfDocument)
	if err != nil {
		return err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return err
	}
	image, diffIDs, err := images.Configured(content, digest, len(chosen.Layers))
	if err != nil {
		return err
	}
	i.Image = image
	i.Digest = digest // docker's own name of it: such an archive has no manifest as registries do
	for number, layer := range chosen.Layers {
		place, found := i.files.open(layer)
		if !found {
			return wire.Fail(wire.Invalid, "it lacks %.200q", layer)
		}
		i.places[diffIDs[number]] = layer
		i.Layers = append(i.Layers, blobs.Wanted{Size: place.Size(), DiffID: diffIDs[number]})
	}
	i.Name = wanted
	if wanted == "" && len(chosen.RepoTags) > 0 {
		i.Name = chosen.RepoTags[0]
	}
	return nil
}

func oneSaved(all []saved, wanted string) (saved, error) {
	var names []string
	var fit []saved
	for _, each := range all {
		names = append(names, each.RepoTags...)
		if wanted == "" || slices.ContainsFunc(each.RepoTags, func(tag string) bool { return same(tag, wanted) }) {
			fit = append(fit, each)
		}
	}
	there := "it has " + listing(names)
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(all) == 0:
		return saved{}, wire.Fail(wire.Invalid, "it has no image that can be read")
	case len(fit) == 0:
		return saved{}, wire.Fail(wire.NotFound, "no image %.200q is in it; %s", wanted, there)
	}
	return saved{}, wire.Fail(wire.BadReference, "it has %d images, say which; %s", len(fit), there)
}

// Section is a layer as the archive has it.
func (i *Image) Section(layer blobs.Wanted) (*io.SectionReader, error) {
	place, found := i.files.open(i.places[layer.DiffID])
	if !found {
		return nil, wire.Fail(wire.Invalid, "it lacks the layer %s", layer.Digest)
	}
	return place, nil
}

// Problem makes a Problem of whatever went wrong.
func (i *Image) Problem(ctx context.Context, err error) *wire.Problem {
	var problem *wire.Problem
	switch {
	case errors.As(err, &problem):
		return problem
	case ctx.Err() != nil:
		return wire.Fail(wire.Cancelled, "cancelled")
	}
	return wire.Fail(wire.Internal, "%v", err)
}
