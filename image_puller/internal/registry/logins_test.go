package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ingle.dev/image_puller/internal/wire"
)

// hostOfURL is that of a test's own server.
func hostOfURL(server *httptest.Server) string { return strings.TrimPrefix(server.URL, "http://") }

func TestALoginIsSeenByItsRegistryAlone(t *testing.T) {
	const config = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}`
	digest, _, err := v1.SHA256(strings.NewReader(config))
	if err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},`+
		`"layers":[{"digest":"%s","size":%d}]}`, digest, len(config), digest, len(config))
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			var asked atomic.Int32
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if len(r.Header.Values("Authorization")) > 0 || strings.Contains(r.URL.String(), "secret") {
					t.Errorf("%s was told %v", r.URL, r.Header)
				}
				_, _ = w.Write([]byte(config))
			}))
			defer elsewhere.Close()
			var registry *httptest.Server
			registry = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					if _, password, _ := r.BasicAuth(); password != "secret" {
						t.Errorf("the token service was told %v", r.Header)
					}
					_, _ = w.Write([]byte(`{"token":"secret-token"}`))
				case !strings.HasPrefix(r.Header.Get("Authorization"), scheme):
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`%s realm="%s/token",service="it"`, scheme, registry.URL))
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/manifests/"):
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					_, _ = w.Write([]byte(manifest))
				case strings.Contains(r.URL.Path, "/blobs/"):
					http.Redirect(w, r, elsewhere.URL+"/blob", http.StatusTemporaryRedirect)
				}
			}))
			defer registry.Close()
			host := hostOfURL(registry)
			order := wire.Order{
				Reference: host + "/app:1", Architecture: "amd64", StallSeconds: 5,
				Logins: map[string]wire.Login{host: {Username: "me", Password: "secret"}},
			}
			image, err := Find(context.Background(), order, func(string) {})
			if err != nil {
				t.Fatal(err)
			}
			body, _, err := image.Open(context.Background(), image.Layers[0].Digest, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if content, err := io.ReadAll(body); err != nil || string(content) != config {
				t.Errorf("had %q, %v", content, err)
			}
			if asked.Load() != 2 {
				t.Errorf("elsewhere was asked %d times", asked.Load())
			}
		})
	}
}
