package sent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ingle.dev/image_puller/internal/blobs"
	"ingle.dev/image_puller/internal/wire"
)

func archiveOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var made bytes.Buffer
	writer := tar.NewWriter(&made)
	for _, header := range entries {
		content := header.PAXRecords["comment"]
		header.PAXRecords = nil
		header.Size = int64(len(content))
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return made.Bytes()
}

func file(name string, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, PAXRecords: map[string]string{"comment": content}}
}

// found is what comes of an archive, and of reading all its layers.
func found(t testing.TB, content []byte, wanted string) (*Image, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { archive.Close() })
	spill, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { spill.Close() })
	return Find(context.Background(), archive, spill, wanted, "amd64")
}

func TestLinksLeadNowhereElse(t *testing.T) {
	link := func(name string, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	for name, entries := range map[string][]tar.Header{
		"out of the archive": {link("manifest.json", "/etc/passwd")},
		"above its root":     {link("manifest.json", "../../../../etc/passwd")},
		"in circles":         {link("manifest.json", "a"), link("a", "manifest.json")},
	} {
		if _, err := found(t, archiveOf(t, entries...), ""); err == nil {
			t.Errorf("%s: found something", name)
		}
	}
}

func TestANameThatNobodyCouldKeepIsNotTold(t *testing.T) {
	tag := strings.Repeat("x", 2<<20)
	content := archiveOf(t,
		file("manifest.json", `[{"Config":"c","RepoTags":["`+tag+`"],"Layers":["l"]}]`),
		file("c", `{"rootfs":{"type":"layers","diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`), file("l", ""))
	if _, err := found(t, content, ""); err == nil || !strings.Contains(err.Error(), "4096 are allowed") {
		t.Errorf("said %v", err)
	}
}

func TestNamesTogetherHaveABound(t *testing.T) {
	var entries []tar.Header
	for number := range mostNamed/4000 + 1 {
		entries = append(entries, file(fmt.Sprintf("%s%05d", strings.Repeat("x/", 2000), number), ""))
	}
	if _, err := found(t, archiveOf(t, entries...), ""); err == nil || !strings.Contains(err.Error(), "its names have") {
		t.Errorf("said %v", err)
	}
}

func TestAFileInPiecesIsWhole(t *testing.T) {
	// GNU's old format: a map of what there is, of a file of a mebibyte that ends with one byte.
	var made bytes.Buffer
	header := make([]byte, 512)
	copy(header, "index.json")
	copy(header[100:], "0000644\x00")
	copy(header[108:], "0000000\x00")
	copy(header[116:], "0000000\x00")
	copy(header[124:], "00000000002\x00")
	copy(header[136:], "00000000000\x00")
	header[156] = 'S'
	copy(header[257:], "ustar  \x00")
	copy(header[386:], "00000000000\x0000000000001\x00")
	copy(header[410:], "00003777777\x0000000000001\x00")
	copy(header[483:], "00004000000\x00")
	copy(header[148:], "        ")
	sum := 0
	for _, each := range header {
		sum += int(each)
	}
	copy(header[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
	made.Write(header)
	content := make([]byte, 512)
	copy(content, "{}")
	made.Write(content)
	made.Write(make([]byte, 1024))
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, made.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	spill, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer spill.Close()
	listed, err := list(context.Background(), archive, spill)
	if err != nil {
		t.Fatal(err)
	}
	got, err := listed.read("index.json", 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1<<20 || got[0] != '{' || got[1<<20-1] != '}' || !bytes.Equal(got[1:1<<20-1], make([]byte, 1<<20-2)) {
		t.Errorf("%d bytes, from %q to %q", len(got), got[0], got[len(got)-1])
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(archiveOf(f, file("index.json", `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}]}`),
		file("blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "{}")))
	f.Add(archiveOf(f, file("manifest.json", `[{"Config":"c","Layers":["l"],"RepoTags":["x:1"]}]`),
		file("c", `{"rootfs":{"diff_ids":["sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"]}}`), file("l", "{}")))
	f.Fuzz(func(t *testing.T, content []byte) {
		image, err := found(t, content, "")
		var problem *wire.Problem
		if err != nil && !errors.As(err, &problem) {
			t.Fatalf("told as %v", err)
		}
		if err != nil {
			return
		}
		for _, layer := range image.Layers {
			if _, err := image.Section(blobs.Wanted{DiffID: layer.DiffID}); err != nil && !errors.As(err, &problem) {
				t.Fatalf("told as %v", err)
			}
		}
	})
}
