package images

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
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

func TestAListOfNextToNothingIsNotTaken(t *testing.T) {
	many := strings.Repeat("0,", MostOfDocument/2-100) + "0"
	for name, into := range map[string]any{
		`{"manifests":[%]}`: &v1.IndexManifest{}, `{"layers":[%]}`: &v1.Manifest{}, `{"history":[%]}`: &v1.ConfigFile{},
	} {
		err := Read([]byte(strings.Replace(name, "%", many, 1)), into)
		if err == nil || !strings.Contains(err.Error(), "are allowed") {
			t.Errorf("%s: said %v", name, err)
		}
	}
}

func TestAnIndexThatLeadsToItselfIsLeft(t *testing.T) {
	content := []byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json"}]}`)
	asked := 0
	_, _, err := Resolve(context.Background(), "it", "amd64", v1.Descriptor{MediaType: types.OCIImageIndex}, content,
		func(context.Context, v1.Descriptor) ([]byte, error) {
			asked++
			return content, nil
		})
	if err == nil || !strings.Contains(err.Error(), "lead to indexes") || asked > 3 {
		t.Errorf("asked %d times, said %v", asked, err)
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
