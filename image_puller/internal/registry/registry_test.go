package registry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ingle.dev/image_puller/internal/wire"
)

func TestOnlyThisMachineIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:5000": true, "127.0.0.1:5000": true, "127.9.9.9": true, "[::1]:5000": true, "::1": true,
		"[::ffff:127.0.0.1]:1": true, "localhost.example.org": false, "127.0.0.1.example.org": false, "10.0.0.1:5000": false,
		"192.168.1.1": false, "registry.local": false, "0.0.0.0:5000": false, "169.254.169.254": false, "": false,
	} {
		if isLoopback(host) != want {
			t.Errorf("%q: not %v", host, want)
		}
	}
}

func TestPlainHTTPStaysAtLoopback(t *testing.T) {
	for _, test := range []struct {
		host, url string
		said      string
	}{
		{"images.example.org", "http://127.0.0.1:1/v2/", "plain http"},
		{"images.example.org", "http://images.example.org/v2/", "plain http"},
		{"127.0.0.1:5000", "http://169.254.169.254/latest", "plain http"},
		{"10.0.0.1", "http://10.0.0.1/v2/", "plain http"},
		{"127.0.0.1:5000", "file:///etc/passwd", "https is allowed"},
		{"127.0.0.1:5000", "http://127.0.0.1:1/v2/", "refused"},
	} {
		request, err := http.NewRequest(http.MethodGet, test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = newTransport(test.host, time.Second).RoundTrip(request)
		if err == nil || !strings.Contains(err.Error(), test.said) {
			t.Errorf("%s from %s: %v", test.url, test.host, err)
		}
	}
}

// said has a registry that answers everything with the same; what comes of it is a Problem.
func said(t *testing.T, reference string, answer http.HandlerFunc) *wire.Problem {
	t.Helper()
	server := httptest.NewServer(answer)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	order := wire.Order{Reference: host + "/" + reference, Architecture: "amd64", StallSeconds: 1}
	_, err := Find(context.Background(), order, func(string) {})
	var problem *wire.Problem
	if !errors.As(err, &problem) {
		t.Fatalf("told as %v", err)
	}
	return problem
}

func TestHostileRegistriesAreTold(t *testing.T) {
	const (
		manifestType = "application/vnd.oci.image.manifest.v1+json"
		indexType    = "application/vnd.oci.image.index.v1+json"
		hash         = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	)
	document := func(kind string, content string) http.HandlerFunc {
		return func(writer http.ResponseWriter, request *http.Request) {
			writer.Header().Set("Content-Type", kind)
			_, _ = writer.Write([]byte(content))
		}
	}
	manifest := func(config string, layers string) http.HandlerFunc {
		return document(manifestType, `{"schemaVersion":2,"mediaType":"`+manifestType+`","config":`+config+`,"layers":[`+layers+`]}`)
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		reason wire.Reason
		said   string
	}{
		"noise":                              {document(manifestType, "\x00\x01"), wire.Invalid, "can't be read"},
		"docker's first schema":              {document("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}"), wire.Invalid, "schema 2"},
		"a web page":                         {document("text/html", "<html>"), wire.Invalid, "no image"},
		"something else":                     {manifest(`{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"`+hash+`","size":0}`, ""), wire.Invalid, "no image of a root file system"},
		"without layers":                     {manifest(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+hash+`","size":0}`, ""), wire.Invalid, "0 layers"},
		"a huge configuration":               {manifest(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+hash+`","size":99999999999}`, `{"digest":"`+hash+`","size":1}`), wire.Invalid, "are allowed"},
		"a digest that is none":              {manifest(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:../../etc","size":0}`, ""), wire.Invalid, "can't be read"},
		"an empty index":                     {document(indexType, `{"schemaVersion":2,"manifests":[]}`), wire.NotFound, "nothing for linux/amd64"},
		"an index of another kind":           {document(indexType, `{"schemaVersion":2,"manifests":[{"mediaType":"`+manifestType+`","digest":"`+hash+`","size":1,"platform":{"os":"linux","architecture":"s390x"}}]}`), wire.NotFound, "there is: linux/s390x"},
		"an index of indexes without an end": {document(indexType, `{"schemaVersion":2,"manifests":[{"mediaType":"`+indexType+`","digest":"`+hash+`","size":1}]}`), wire.Unreachable, "digest"},
		"a long manifest":                    {document(manifestType, strings.Repeat(" ", 20<<20)), wire.Invalid, "can't be read"},
		"a redirection away": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/", 302)
		}, wire.Unreachable, "plain http"},
		"redirections for ever": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 302) }, wire.Unreachable, "10 redirects"},
		"silence":               {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, wire.Unreachable, ""},
		"too many requests":     {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, wire.Busy, "fewer"},
		"not allowed":           {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, wire.Denied, "denies"},
		"a challenge to elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://169.254.169.254/token"`)
			w.WriteHeader(401)
		}, wire.Unreachable, "realm"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			problem := said(t, "app:1", test.answer)
			if problem.Reason != test.reason || !strings.Contains(problem.Message, test.said) {
				t.Errorf("said %s: %s", problem.Reason, problem.Message)
			}
			if len(problem.Message) > 2010 {
				t.Errorf("said %d bytes", len(problem.Message))
			}
		})
	}
}
