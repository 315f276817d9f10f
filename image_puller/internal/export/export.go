// Package export writes an image as an OCI layout in an archive, which docker's own tools read, too.
package export

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/ext4"
	"ingle.dev/image_puller/internal/layers"
	"ingle.dev/image_puller/internal/wire"
)

const (
	tarBlock = 512
	fast     = 3 // of gzip's levels: twice as fast as the usual one, a twentieth larger

	wholeName = "io.containerd.image.name"
	refName   = "org.opencontainers.image.ref.name"
)

// Write makes the archive that is ordered.
func Write(ctx context.Context, order wire.Export) error {
	image, err := os.Open(order.Image)
	if err != nil {
		return err
	}
	defer image.Close()
	facts, err := image.Stat()
	if err != nil {
		return err
	}
	tree, err := ext4.Read(image, facts.Size(), layers.Limits{Names: order.MostFiles, Bytes: order.MostBytes})
	if err != nil {
		return err
	}
	when := time.Unix(order.CreatedSeconds, 0).UTC()
	tree.Root.Changed = when // mke2fs has set it, and no image says it
	archive, err := os.OpenFile(order.Archive, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return blobs.Written(err)
	}
	defer archive.Close()
	writer := writer{file: archive, when: when}
	layer, diffID, err := writer.layer(ctx, tree, image)
	if err != nil {
		return blobs.Written(err)
	}
	return blobs.Written(writer.rest(order, layer, diffID))
}

type writer struct {
	file *os.File
	when time.Time
	at   int64
}

// layer writes the blob first, and then, when its digest is known, the header before it.
func (w *writer) layer(ctx context.Context, tree *layers.Tree, image *os.File) (v1.Descriptor, v1.Hash, error) {
	if _, err := w.file.Seek(tarBlock, io.SeekStart); err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	blob := &counted{file: w.file, digest: sha256.New()}
	compressor, err := gzip.NewWriterLevel(blob, fast)
	if err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	plain := sha256.New()
	sink := bufio.NewWriterSize(io.MultiWriter(plain, compressor), 1<<20)
	if err := tree.WriteArchive(ctx, sink, func(int) *os.File { return image }); err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	if err := sink.Flush(); err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	if err := compressor.Close(); err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	descriptor := v1.Descriptor{MediaType: types.OCILayer, Size: blob.size, Digest: hashOf(blob.digest)}
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(w.header(place(descriptor.Digest), descriptor.Size)); err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	if _, err := w.file.WriteAt(header.Bytes(), 0); err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	w.at = tarBlock + (blob.size+tarBlock-1)/tarBlock*tarBlock
	return descriptor, hashOf(plain), nil
}

// header takes one block in the archive: its name is short, and its size as GNU's format has it.
func (w *writer) header(name string, size int64) *tar.Header {
	return &tar.Header{
		Format: tar.FormatGNU, Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: w.when,
	}
}

func (w *writer) rest(order wire.Export, layer v1.Descriptor, diffID v1.Hash) error {
	config, err := json.Marshal(configuration(order, diffID, w.when))
	if err != nil {
		return err
	}
	described := describe(config, types.OCIConfigJSON)
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: described, Layers: []v1.Descriptor{layer},
	})
	if err != nil {
		return err
	}
	named := describe(manifest, types.OCIManifestSchema1)
	saved := map[string]any{
		"Config": place(described.Digest), "RepoTags": nil, "Layers": []string{place(layer.Digest)},
	}
	if order.Name != "" {
		named.Annotations = map[string]string{wholeName: order.Name, refName: order.Name}
		saved["RepoTags"] = []string{order.Name}
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{named},
	})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]any{saved})
	if err != nil {
		return err
	}
	if _, err := w.file.Seek(w.at, io.SeekStart); err != nil {
		return err
	}
	archive := tar.NewWriter(w.file)
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{place(described.Digest), config},
		{place(named.Digest), manifest},
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"manifest.json", docker},
	} {
		if err := archive.WriteHeader(w.header(file.name, int64(len(file.content)))); err != nil {
			return err
		}
		if _, err := archive.Write(file.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// configuration is what the image says of how it is to be run, as it came.
func configuration(order wire.Export, diffID v1.Hash, when time.Time) v1.ConfigFile {
	said := order.Config
	config := v1.Config{
		Entrypoint: said.Entrypoint, Cmd: said.Command, Env: said.Environment, User: said.User,
		WorkingDir: said.Directory, StopSignal: said.StopSignal, Labels: said.Labels,
	}
	for _, port := range said.ExposedPorts {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[port] = struct{}{}
	}
	if check := said.Healthcheck; check != nil {
		config.Healthcheck = &v1.HealthConfig{
			Test: check.Test, Retries: check.Retries,
			Interval:    time.Duration(check.IntervalMilliseconds) * time.Millisecond,
			Timeout:     time.Duration(check.TimeoutMilliseconds) * time.Millisecond,
			StartPeriod: time.Duration(check.StartPeriodMilliseconds) * time.Millisecond,
		}
	}
	return v1.ConfigFile{
		Architecture: order.Architecture, OS: "linux", Created: v1.Time{Time: when}, Config: config,
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		History: []v1.History{{Created: v1.Time{Time: when}, CreatedBy: "ingle image export"}},
	}
}

func describe(content []byte, kind types.MediaType) v1.Descriptor {
	sum := sha256.Sum256(content)
	return v1.Descriptor{
		MediaType: kind, Size: int64(len(content)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
	}
}

func hashOf(digest hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest.Sum(nil))}
}

func place(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

// counted is a file of which so much is written, with some of the disk left to others.
type counted struct {
	file    *os.File
	digest  hash.Hash
	size    int64
	checked int64
}

func (c *counted) Write(piece []byte) (int, error) {
	const checkEvery = 16 << 20
	if c.size >= c.checked {
		if err := blobs.Room(c.file.Name(), checkEvery); err != nil {
			return 0, err
		}
		c.checked = c.size + checkEvery
	}
	_, _ = c.digest.Write(piece) // never fails
	count, err := c.file.Write(piece)
	c.size += int64(count)
	return count, err
}
