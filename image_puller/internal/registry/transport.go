package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"ingle.dev/image_puller/internal/images"
)

// guarded is the only way to a registry. Whatever a reference, a redirection or a challenge leads to, it is HTTPS, or
// stays on this machine's loopback when it began there; and what is no blob has a bound.
type guarded struct {
	inner    http.RoundTripper
	loopback bool
}

func newTransport(host string, stall time.Duration) *guarded {
	const patience = 20 * time.Second
	dialer := &net.Dialer{Timeout: patience}
	inner := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    patience,
		ResponseHeaderTimeout:  stall,
		MaxResponseHeaderBytes: 1 << 20,
		MaxConnsPerHost:        8,
		IdleConnTimeout:        time.Minute,
		// What is compressed has a digest as it is.
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
	}
	return &guarded{inner, isLoopback(host)}
}

func (t *guarded) RoundTrip(request *http.Request) (*http.Response, error) {
	plain := request.URL.Scheme == "http"
	if plain && !(t.loopback && isLoopback(request.URL.Host)) {
		return nil, fmt.Errorf("plain http to %s: only registries at this machine's loopback may be asked so", request.URL.Host)
	}
	if !plain && request.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s: https is allowed", request.URL.Redacted())
	}
	response, err := t.inner.RoundTrip(request)
	if err == nil && request.Context().Value(unbounded) == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, images.MostOfDocument+1), response.Body}
	}
	return response, err
}

// unbounded is set in the context of what asks for a blob, and counts itself.
type contextKey int

const unbounded contextKey = 1

// isLoopback tells whether HOST[:PORT] is this machine, whatever a name server says.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}
