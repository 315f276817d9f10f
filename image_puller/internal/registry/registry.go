// Package registry finds images in registries. What a registry answers may have been written by anybody.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/wire"
)

const dockerHub = "docker.io"

// Docker itself takes 127.
const mostLayers = 500

// Image is one that was found: what there is of it, and how to get its layers.
type Image struct {
	Digest       v1.Hash
	ConfigDigest v1.Hash
	Config       wire.Config
	Layers       []blobs.Wanted

	repository name.Repository
	client     *http.Client
}

// Find asks the mirrors of a reference's registry, then the registry itself. Only a Problem is an error.
func Find(ctx context.Context, order wire.Order, note func(string)) (*Image, error) {
	reference, err := parse(order.Reference)
	if err != nil {
		return nil, err
	}
	host := hostOf(reference.Context().Registry)
	for _, mirror := range order.Mirrors[host] {
		image, err := findAt(ctx, order, reference, mirror)
		if err == nil {
			return image, nil
		}
		if ctx.Err() != nil {
			return nil, problemOf(ctx, order.Reference, err)
		}
		note(fmt.Sprintf("mirror %s: %s", mirror, problemOf(ctx, order.Reference, err).Message))
	}
	image, err := find(ctx, order, reference)
	if err != nil {
		return nil, problemOf(ctx, order.Reference, err)
	}
	return image, nil
}

func parse(reference string) (name.Reference, error) {
	parsed, err := name.ParseReference(reference, options(reference)...)
	if err != nil {
		return nil, wire.Fail(wire.BadReference, "%v", err)
	}
	return parsed, nil
}

// options lets what is at loopback be asked by plain http as well.
func options(reference string) []name.Option {
	host, _, found := strings.Cut(reference, "/")
	if found && isLoopback(host) {
		return []name.Option{name.Insecure}
	}
	return nil
}

// findAt takes the same repository and the same tag or digest from below a mirror.
func findAt(ctx context.Context, order wire.Order, reference name.Reference, mirror string) (*Image, error) {
	separator := ":"
	if _, digested := reference.(name.Digest); digested {
		separator = "@"
	}
	there, err := parse(mirror + "/" + reference.Context().RepositoryStr() + separator + reference.Identifier())
	if err != nil {
		return nil, err
	}
	return find(ctx, order, there)
}

func find(ctx context.Context, order wire.Order, reference name.Reference) (*Image, error) {
	repository := reference.Context()
	stall := time.Duration(order.StallSeconds) * time.Second
	login := order.Logins[hostOf(repository.Registry)]
	who := authn.FromConfig(authn.AuthConfig{
		Username: login.Username, Password: login.Password, IdentityToken: login.IdentityToken,
	})
	inner := newTransport(repository.RegistryStr(), stall)
	bounded, cancel := context.WithTimeout(ctx, 3*stall)
	defer cancel()
	// Its token is fetched once, and anew when it is over.
	authorized, err := transport.NewWithContext(bounded, repository.Registry, who, inner, []string{repository.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	descriptor, err := remote.Get(reference, remote.WithTransport(authorized), remote.WithContext(bounded))
	if err != nil {
		return nil, err
	}
	manifest, digest, err := manifestOf(bounded, descriptor, order, repository, authorized)
	if err != nil {
		return nil, err
	}
	return describe(bounded, manifest, digest, repository, &http.Client{Transport: authorized})
}

// manifestOf is of one image: that which an index has for this architecture.
func manifestOf(
	ctx context.Context, descriptor *remote.Descriptor, order wire.Order, repository name.Repository, authorized http.RoundTripper,
) (*v1.Manifest, v1.Hash, error) {
	const deepest = 3
	for depth := 0; descriptor.MediaType.IsIndex(); depth++ {
		index, err := v1.ParseIndexManifest(strings.NewReader(string(descriptor.Manifest)))
		if err != nil || depth == deepest {
			return nil, v1.Hash{}, wire.Fail(wire.Invalid, "%s: its index can't be read: %v", order.Reference, err)
		}
		chosen, err := choose(index, order)
		if err != nil {
			return nil, v1.Hash{}, err
		}
		descriptor, err = remote.Get(repository.Digest(chosen.String()), remote.WithTransport(authorized), remote.WithContext(ctx))
		if err != nil {
			return nil, v1.Hash{}, err
		}
	}
	if !descriptor.MediaType.IsImage() {
		return nil, v1.Hash{}, wire.Fail(wire.Invalid,
			"%s is no image that can be read (media type %q); OCI images and those of docker's schema 2 can", order.Reference, descriptor.MediaType)
	}
	manifest, err := v1.ParseManifest(strings.NewReader(string(descriptor.Manifest)))
	if err != nil {
		return nil, v1.Hash{}, wire.Fail(wire.Invalid, "%s: its manifest can't be read: %v", order.Reference, err)
	}
	return manifest, descriptor.Digest, nil
}

func choose(index *v1.IndexManifest, order wire.Order) (v1.Hash, error) {
	var there []string
	for _, entry := range index.Manifests {
		if entry.MediaType.IsIndex() && entry.Platform == nil {
			return entry.Digest, nil
		}
		if entry.Platform == nil || !entry.MediaType.IsImage() && !entry.MediaType.IsIndex() {
			continue
		}
		if entry.Platform.OS == "linux" && entry.Platform.Architecture == order.Architecture {
			return entry.Digest, nil
		}
		if len(there) < 20 && entry.Platform.OS != "unknown" { // that is what signatures and the like are filed under
			there = append(there, entry.Platform.String())
		}
	}
	return v1.Hash{}, wire.Fail(wire.NotFound,
		"%s has nothing for linux/%s; there is: %s", order.Reference, order.Architecture, strings.Join(there, ", "))
}

func describe(
	ctx context.Context, manifest *v1.Manifest, digest v1.Hash, repository name.Repository, client *http.Client,
) (*Image, error) {
	if manifest.Config.MediaType != types.OCIConfigJSON && manifest.Config.MediaType != types.DockerConfigJSON {
		return nil, wire.Fail(wire.Invalid, "it is no image of a root file system: its configuration is of type %q", manifest.Config.MediaType)
	}
	if len(manifest.Layers) == 0 || len(manifest.Layers) > mostLayers {
		return nil, wire.Fail(wire.Invalid, "it has %d layers; 1 to %d are allowed", len(manifest.Layers), mostLayers)
	}
	image := &Image{Digest: digest, ConfigDigest: manifest.Config.Digest, repository: repository, client: client}
	content, err := image.document(ctx, manifest.Config)
	if err != nil {
		return nil, err
	}
	config, diffIDs, err := configOf(content)
	if err != nil {
		return nil, err
	}
	if len(diffIDs) != len(manifest.Layers) {
		return nil, wire.Fail(wire.Invalid, "its manifest has %d layers and its configuration %d", len(manifest.Layers), len(diffIDs))
	}
	image.Config = config
	for number, layer := range manifest.Layers {
		if layer.Size < 0 {
			return nil, wire.Fail(wire.Invalid, "layer %s is said to have %d bytes", layer.Digest, layer.Size)
		}
		image.Layers = append(image.Layers, blobs.Wanted{Digest: layer.Digest, Size: layer.Size, DiffID: diffIDs[number]})
	}
	return image, nil
}

// document is a small blob, with the digest that it must have.
func (i *Image) document(ctx context.Context, descriptor v1.Descriptor) ([]byte, error) {
	if descriptor.Size > mostOfDocument {
		return nil, wire.Fail(wire.Invalid, "%s has %d bytes; %d are allowed", descriptor.Digest, descriptor.Size, mostOfDocument)
	}
	body, _, err := i.Open(ctx, descriptor.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, mostOfDocument+1))
	if err != nil {
		return nil, err
	}
	found, _, err := v1.SHA256(strings.NewReader(string(content)))
	if err != nil {
		return nil, err
	}
	if found != descriptor.Digest {
		return nil, wire.Fail(wire.Invalid, "the registry sent something else in the place of %s", descriptor.Digest)
	}
	return content, nil
}

// Open asks for a blob from an offset on, and answers from where on it comes: the offset, or 0.
func (i *Image) Open(ctx context.Context, digest v1.Hash, offset int64) (io.ReadCloser, int64, error) {
	place := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", i.scheme(), i.repository.RegistryStr(), i.repository.RepositoryStr(), digest)
	request, err := http.NewRequestWithContext(context.WithValue(ctx, unbounded, true), http.MethodGet, place, nil)
	if err != nil {
		return nil, 0, err
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := i.client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	var first int64
	if response.StatusCode == http.StatusPartialContent {
		if _, err = fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &first); err == nil && first != offset {
			err = fmt.Errorf("asked for what begins at %d, the registry sent what begins at %d", offset, first)
		}
	} else {
		err = transport.CheckError(response, http.StatusOK)
	}
	if err != nil {
		response.Body.Close()
		return nil, 0, err
	}
	return response.Body, first, nil
}

func (i *Image) scheme() string {
	// The transport that knows the login changes it to https where the registry answered there.
	return i.repository.Scheme()
}

func hostOf(registry name.Registry) string {
	if registry.RegistryStr() == name.DefaultRegistry {
		return dockerHub
	}
	return registry.RegistryStr()
}

// Problem makes a Problem of whatever went wrong between here and the registry.
func (i *Image) Problem(ctx context.Context, err error) *wire.Problem {
	return problemOf(ctx, i.repository.Name(), err)
}

func problemOf(ctx context.Context, reference string, err error) *wire.Problem {
	var problem *wire.Problem
	var answer *transport.Error
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.Is(ctx.Err(), context.Canceled):
		return wire.Fail(wire.Cancelled, "cancelled")
	case errors.As(err, &answer):
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return wire.Fail(wire.Denied, "%s: the registry denies it: %v", reference, err)
		case http.StatusNotFound:
			return wire.Fail(wire.NotFound, "%s: the registry has no such image: %v", reference, err)
		case http.StatusTooManyRequests:
			return wire.Fail(wire.Busy, "%s: the registry wants fewer requests: %v", reference, err)
		}
	}
	return wire.Fail(wire.Unreachable, "%s: %v", reference, err)
}
