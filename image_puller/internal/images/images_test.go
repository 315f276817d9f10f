package images

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestAConfigurationThatIsTooLargeIsRefused(t *testing.T) {
	content, err := json.Marshal(v1.ConfigFile{Config: v1.Config{Env: []string{strings.Repeat("x", mostOfConfig)}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ConfigOf(content); err == nil || !strings.Contains(err.Error(), "are allowed") {
		t.Errorf("said %v", err)
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"config":{"Cmd":["sh"],"Healthcheck":{"Interval":-1}},"rootfs":{"diff_ids":["sha256:00"]}}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if config, _, err := ConfigOf(content); err == nil {
			if kept, err := json.Marshal(config); err != nil || len(kept) > mostOfConfig {
				t.Fatalf("kept %d bytes, %v", len(kept), err)
			}
		}
		if index, err := v1.ParseIndexManifest(strings.NewReader(string(content))); err == nil {
			_, _ = Choose(index.Manifests, "it", "amd64")
		}
	})
}
