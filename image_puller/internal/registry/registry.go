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

	"ingle.dev/image_puller/internal/images"
	"ingle.dev/image_puller/internal/wire"
)

const dockerHub = "docker.io"

// Image is one that was found: what there is of it, and how to get its layers.
type Image struct {
	*images.Image

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
	image := &Image{repository: repository, client: &http.Client{Transport: authorized}}
	manifest, digest, err := images.Resolve(
		bounded, order.Reference, order.Architecture, descriptor.Descriptor, descriptor.Manifest,
		func(ctx context.Context, wanted v1.Descriptor) ([]byte, error) {
			found, err := remote.Get(
				repository.Digest(wanted.Digest.String()), remote.WithTransport(authorized), remote.WithContext(ctx))
			if err != nil {
				return nil, err
			}
			return found.Manifest, nil
		})
	if err != nil {
		return nil, err
	}
	image.Image, err = images.Describe(bounded, manifest, digest, image.document)
	return image, err
}

// document is a small blob, with the digest that it must have.
func (i *Image) document(ctx context.Context, descriptor v1.Descriptor) ([]byte, error) {
	if descriptor.Size > images.MostOfDocument {
		return nil, wire.Fail(wire.Invalid, "%s has %d bytes; %d are allowed", descriptor.Digest, descriptor.Size, images.MostOfDocument)
	}
	body, _, err := i.Open(ctx, descriptor.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, images.MostOfDocument+1))
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

// Registry is where it is.
func (i *Image) Registry() string { return i.repository.RegistryStr() }

// Repository is where its layers are.
func (i *Image) Repository() string { return i.repository.Name() }

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
