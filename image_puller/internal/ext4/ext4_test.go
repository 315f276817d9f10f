package ext4

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ingle.dev/image_puller/internal/layers"
	"ingle.dev/image_puller/internal/wire"
)

var limits = layers.Limits{Names: 10_000, Bytes: 64 << 20}

// made is a small file system with files of every kind that an ordinary user can make.
func made(t testing.TB, options ...string) []byte {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(tree, "a", "b"), 0o750),
		os.WriteFile(filepath.Join(tree, "a", "file"), []byte(strings.Repeat("content ", 3000)), 0o640),
		os.WriteFile(filepath.Join(tree, "tiny"), []byte("in the inode"), 0o600),
		os.Chmod(filepath.Join(tree, "tiny"), 0o755|os.ModeSetuid),
		os.Link(filepath.Join(tree, "tiny"), filepath.Join(tree, "again")),
		os.Symlink("a/file", filepath.Join(tree, "short")),
		os.Symlink(strings.Repeat("x", 100), filepath.Join(tree, "long")),
	); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	arguments := append([]string{"-q", "-F", "-t", "ext4", "-b", "1024", "-d", tree}, options...)
	if said, err := exec.Command("/usr/sbin/mke2fs", append(arguments, image, "256")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestAllOfItIsRead(t *testing.T) {
	for _, options := range [][]string{{"-O", "^has_journal"}, {"-O", "^has_journal,inline_data"}, {"-O", "^has_journal,^extents,^64bit"}} {
		content := made(t, options...)
		tree, err := Read(bytes.NewReader(content), int64(len(content)), limits)
		if err != nil {
			t.Fatalf("%v: %v", options, err)
		}
		root := tree.Root.Children
		if root["tiny"] != root["again"] || root["tiny"].Mode != 0o4755 || root["short"].Target != "a/file" || root["long"].Target != strings.Repeat("x", 100) {
			t.Errorf("%v: something else: %v", options, root)
		}
		var file []byte
		for _, piece := range root["a"].Children["file"].Content {
			file = append(file, content[piece.Offset:piece.Offset+piece.Length]...)
		}
		if string(file) != strings.Repeat("content ", 3000) || len(root) != 5 {
			t.Errorf("%v: %d bytes of a file, %d names", options, len(file), len(root))
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(made(f, "-O", "^has_journal"))
	f.Add(made(f, "-O", "^has_journal,inline_data,ea_inode"))
	f.Add(made(f, "-O", "^has_journal,^extents,^64bit"))
	f.Fuzz(func(t *testing.T, content []byte) {
		tree, err := Read(bytes.NewReader(content), int64(len(content)), limits)
		var problem *wire.Problem
		if err != nil && !errors.As(err, &problem) {
			t.Fatalf("told as %v", err)
		}
		if err != nil {
			return
		}
		source, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		if _, err := source.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := tree.WriteArchive(context.Background(), io.Discard, func(int) *os.File { return source }); err != nil {
			t.Fatal(err)
		}
	})
}
