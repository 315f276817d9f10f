// Package images reads what images are described by, wherever they are: indexes, manifests and configurations. They may
// have been written by anybody.
package images

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/wire"
)

// MostOfDocument is how long a manifest or a configuration may be; registries themselves take no manifest of more.
const MostOfDocument = 4 << 20

// What is read of one takes a hundred times its own size when it is a list of next to nothing. Honest ones have hundreds.
const mostParts = 100_000

// Docker itself takes 127.
const mostLayers = 500

// Image is one that was found: what there is of it.
type Image struct {
	Digest       v1.Hash
	ConfigDigest v1.Hash
	Config       wire.Config
	Layers       []blobs.Wanted
}

// Document brings a small blob that has the digest of its descriptor.
type Document func(ctx context.Context, descriptor v1.Descriptor) ([]byte, error)

// Read makes sense of a document's JSON.
func Read(content []byte, into any) error {
	if parts := bytes.Count(content, []byte(",")); parts > mostParts {
		return wire.Fail(wire.Invalid, "a list in it, or all of them together, has %d parts; %d are allowed", parts, mostParts)
	}
	return json.Unmarshal(content, into)
}

// Resolve follows indexes, whose content begins with that of `descriptor`, to the manifest for an architecture.
func Resolve(
	ctx context.Context, name string, architecture string, descriptor v1.Descriptor, content []byte, manifest Document,
) (*v1.Manifest, v1.Hash, error) {
	const deepest = 3
	for depth := 0; descriptor.MediaType.IsIndex(); depth++ {
		if depth == deepest {
			return nil, v1.Hash{}, wire.Fail(wire.Invalid, "%s: its indexes lead to indexes for ever; %d are followed", name, deepest)
		}
		var index v1.IndexManifest
		if err := Read(content, &index); err != nil {
			return nil, v1.Hash{}, wire.Fail(wire.Invalid, "%s: its index can't be read: %v", name, err)
		}
		var err error
		descriptor, err = Choose(index.Manifests, name, architecture)
		if err != nil {
			return nil, v1.Hash{}, err
		}
		content, err = manifest(ctx, descriptor)
		if err != nil {
			return nil, v1.Hash{}, err
		}
	}
	if !descriptor.MediaType.IsImage() {
		return nil, v1.Hash{}, wire.Fail(wire.Invalid,
			"%s is no image that can be read (media type %q); OCI images and those of docker's schema 2 can", name, descriptor.MediaType)
	}
	var read v1.Manifest
	if err := Read(content, &read); err != nil {
		return nil, v1.Hash{}, wire.Fail(wire.Invalid, "%s: its manifest can't be read: %v", name, err)
	}
	return &read, descriptor.Digest, nil
}

// Choose takes what an index has for an architecture.
func Choose(entries []v1.Descriptor, name string, architecture string) (v1.Descriptor, error) {
	var there []string
	for _, entry := range entries {
		if entry.MediaType.IsIndex() && entry.Platform == nil {
			return entry, nil
		}
		if entry.Platform == nil || !entry.MediaType.IsImage() && !entry.MediaType.IsIndex() {
			continue
		}
		if entry.Platform.OS == "linux" && entry.Platform.Architecture == architecture {
			return entry, nil
		}
		if len(there) < 20 && entry.Platform.OS != "unknown" { // that is what signatures and the like are filed under
			there = append(there, entry.Platform.String())
		}
	}
	return v1.Descriptor{}, wire.Fail(wire.NotFound,
		"%s has nothing for linux/%s; there is: %s", name, architecture, strings.Join(there, ", "))
}

// Describe reads the configuration that goes with a manifest.
func Describe(ctx context.Context, manifest *v1.Manifest, digest v1.Hash, document Document) (*Image, error) {
	if manifest.Config.MediaType != types.OCIConfigJSON && manifest.Config.MediaType != types.DockerConfigJSON {
		return nil, wire.Fail(wire.Invalid, "it is no image of a root file system: its configuration is of type %q", manifest.Config.MediaType)
	}
	if err := checkLayers(len(manifest.Layers)); err != nil {
		return nil, err
	}
	content, err := document(ctx, manifest.Config)
	if err != nil {
		return nil, err
	}
	image, diffIDs, err := Configured(content, manifest.Config.Digest, len(manifest.Layers))
	if err != nil {
		return nil, err
	}
	image.Digest = digest
	for number, layer := range manifest.Layers {
		if layer.Size < 0 {
			return nil, wire.Fail(wire.Invalid, "layer %s is said to have %d bytes", layer.Digest, layer.Size)
		}
		image.Layers = append(image.Layers, blobs.Wanted{Digest: layer.Digest, Size: layer.Size, DiffID: diffIDs[number]})
	}
	return image, nil
}

// Configured is an image of so many layers with that configuration, as yet without them.
func Configured(content []byte, digest v1.Hash, layers int) (*Image, []v1.Hash, error) {
	if err := checkLayers(layers); err != nil {
		return nil, nil, err
	}
	config, diffIDs, err := ConfigOf(content)
	if err != nil {
		return nil, nil, err
	}
	if len(diffIDs) != layers {
		return nil, nil, wire.Fail(wire.Invalid, "its manifest has %d layers and its configuration %d", layers, len(diffIDs))
	}
	return &Image{ConfigDigest: digest, Config: config}, diffIDs, nil
}

func checkLayers(count int) error {
	if count == 0 || count > mostLayers {
		return wire.Fail(wire.Invalid, "it has %d layers; 1 to %d are allowed", count, mostLayers)
	}
	return nil
}
