package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ingle.dev/image_puller/internal/wire"
)

var limits = Limits{Names: 1000, Bytes: 1 << 20}

// layer is an archive of entries: "name/", "name=content", "name->symlink", "name=>hard link".
func layer(t testing.TB, entries ...string) []byte {
	t.Helper()
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, entry := range entries {
		header := &tar.Header{Name: entry, Mode: 0o644, Typeflag: tar.TypeReg}
		content := ""
		if name, target, found := strings.Cut(entry, "=>"); found {
			header.Name, header.Linkname, header.Typeflag = name, target, tar.TypeLink
		} else if name, target, found := strings.Cut(entry, "->"); found {
			header.Name, header.Linkname, header.Typeflag = name, target, tar.TypeSymlink
		} else if name, said, found := strings.Cut(entry, "="); found {
			header.Name, content = name, said
		} else if strings.HasSuffix(entry, "/") {
			header.Typeflag, header.Mode = tar.TypeDir, 0o755
		}
		header.Size = int64(len(content))
		if err := errors.Join(writer.WriteHeader(header), ignoreCount(io.WriteString(writer, content))); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func ignoreCount(_ int, err error) error { return err }

// flattened puts archives together and reads what comes of it: names with what they are.
func flattened(t testing.TB, limits Limits, archives ...[]byte) (map[string]string, error) {
	t.Helper()
	directory := t.TempDir()
	spill := create(t, directory, "spill", nil)
	tree := NewTree(limits, spill)
	var files []*os.File
	for number, archive := range archives {
		file := create(t, directory, fmt.Sprint(number), archive)
		files = append(files, file)
		reader, err := NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Apply(context.Background(), reader); err != nil {
			return nil, err
		}
	}
	made := create(t, directory, "made", nil)
	if err := tree.WriteArchive(context.Background(), made, func(source int) *os.File {
		if source == Spilled {
			return spill
		}
		return files[source]
	}); err != nil {
		t.Fatalf("what was taken can't be written: %v", err)
	}
	found := read(t, made)
	if count := len(found) - 1; count != tree.names {
		t.Fatalf("%d names, and %d were counted", count, tree.names)
	}
	return found, nil
}

func create(t testing.TB, directory string, name string, content []byte) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(directory, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t testing.TB, archive *os.File) map[string]string {
	t.Helper()
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	reader := tar.NewReader(archive)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(header.Name, "./")
		if _, again := found[name]; again {
			t.Fatalf("%q twice", name)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		switch header.Typeflag {
		case tar.TypeDir:
			found[name] = "directory"
		case tar.TypeSymlink:
			found[name] = "->" + header.Linkname
		case tar.TypeLink:
			found[name] = found[strings.TrimPrefix(header.Linkname, "./")]
		default:
			found[name] = string(content)
		}
	}
}

func TestLayersAreWhatTheyWouldBeOneAfterTheOther(t *testing.T) {
	for name, test := range map[string]struct {
		layers [][]string
		want   []string
	}{
		"files are replaced":                   {[][]string{{"a=1", "b=1"}, {"a=2"}}, []string{"a 2", "b 1"}},
		"a whiteout removes":                   {[][]string{{"d/", "d/a=1", "d/b=1"}, {"d/.wh.a"}}, []string{"d/ directory", "d/b 1"}},
		"of a directory, with all":             {[][]string{{"d/", "d/e/", "d/e/a=1", "x=1"}, {".wh.d"}}, []string{"x 1"}},
		"of nothing":                           {[][]string{{"x=1"}, {".wh.d", "no/where/.wh.d"}}, []string{"x 1"}},
		"in the lowest layer":                  {[][]string{{".wh.d", "x=1"}}, []string{"x 1"}},
		"of lower layers only":                 {[][]string{{"d/", "d/old=1"}, {"d/", "d/new=2", ".wh.d"}}, []string{"d/ directory", "d/new 2"}},
		"a file behind its whiteout":           {[][]string{{"a=1"}, {".wh.a", "a=2"}}, []string{"a 2"}},
		"a file before its whiteout":           {[][]string{{"a=1"}, {"a=2", ".wh.a"}}, []string{"a 2"}},
		"an opaque directory":                  {[][]string{{"d/", "d/a=1", "d/e/", "d/e/b=1"}, {"d/", "d/.wh..wh..opq", "d/c=2"}}, []string{"d/ directory", "d/c 2"}},
		"told last":                            {[][]string{{"d/", "d/a=1", "d/e/", "d/e/b=1"}, {"d/e/c=2", "d/.wh..wh..opq"}}, []string{"d/ directory", "d/e/ directory", "d/e/c 2"}},
		"an opaque root":                       {[][]string{{"a=1"}, {".wh..wh..opq", "b=2"}}, []string{"b 2"}},
		"AUFS's own files":                     {[][]string{{"a=1", ".wh..wh.plnk/", ".wh..wh.aufs=x"}}, []string{"a 1"}},
		"a directory in the place of a file":   {[][]string{{"a=1"}, {"a/", "a/b=2"}}, []string{"a/ directory", "a/b 2"}},
		"a file in the place of a directory":   {[][]string{{"a/", "a/b=1"}, {"a=2"}}, []string{"a 2"}},
		"a directory stays one":                {[][]string{{"a/", "a/b=1"}, {"a/"}}, []string{"a/ directory", "a/b 1"}},
		"a directory in the place of a link":   {[][]string{{"a/", "b->a"}, {"b/", "b/c=2"}}, []string{"a/ directory", "b/ directory", "b/c 2"}},
		"through a lower layer's symlink":      {[][]string{{"usr/", "usr/lib/", "lib->usr/lib"}, {"lib/x=2"}}, []string{"lib ->usr/lib", "usr/ directory", "usr/lib/ directory", "usr/lib/x 2"}},
		"a whiteout behind a symlink":          {[][]string{{"usr/", "usr/x=1", "lib->/usr"}, {"lib/.wh.x"}}, []string{"lib ->/usr", "usr/ directory"}},
		"out of the root leads to the root":    {[][]string{{"out->../../..", "out/x=1", "abs->/", "abs/y=2"}}, []string{"abs ->/", "out ->../../..", "x 1", "y 2"}},
		"a link across layers":                 {[][]string{{"a=1"}, {"b=>a"}}, []string{"a 1", "b 1"}},
		"keeps what is replaced":               {[][]string{{"a=1"}, {"b=>a"}, {"a=2"}}, []string{"a 2", "b 1"}},
		"keeps what is whited out":             {[][]string{{"a=1"}, {"b=>a", ".wh.a"}}, []string{"b 1"}},
		"to a symlink":                         {[][]string{{"a->x", "b=>a"}}, []string{"a ->x", "b ->x"}},
		"to itself":                            {[][]string{{"a=1"}, {"a=>a"}}, []string{"a 1"}},
		"parents that nobody told":             {[][]string{{"a/b/c=1"}}, []string{"a/ directory", "a/b/ directory", "a/b/c 1"}},
		"slashes and dots":                     {[][]string{{"./a/", "/a/./b=1", ".//c=1"}}, []string{"a/ directory", "a/b 1", "c 1"}},
		"names that only look like whiteouts":  {[][]string{{"x.wh.a=1", ".wh=1"}}, []string{".wh 1", "x.wh.a 1"}},
		"bytes that are no text, and newlines": {[][]string{{"\xff\xfe=1", "a\nb=2", " =3"}}, []string{"  3", "\xff\xfe 1", "a\nb 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			var archives [][]byte
			for _, entries := range test.layers {
				archives = append(archives, layer(t, entries...))
			}
			found, err := flattened(t, limits, archives...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for name, what := range found {
				if name != "" {
					got = append(got, name+" "+what)
				}
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestHostileLayersAreRefused(t *testing.T) {
	many := make([]string, limits.Names+1)
	for number := range many {
		many[number] = fmt.Sprintf("f%d=", number)
	}
	for name, test := range map[string]struct {
		entries []string
		said    string
	}{
		"a way out":                    {[]string{"a/../../etc/passwd=x"}, "'..' is not allowed"},
		"a link out":                   {[]string{"a=>../../etc/passwd"}, "'..' is not allowed"},
		"a link to nothing":            {[]string{"a=>b"}, "which is not there"},
		"a link to a directory":        {[]string{"d/", "a=>d"}, "which is not there"},
		"a link to what comes later":   {[]string{"a=>b", "b=1"}, "which is not there"},
		"the same file twice":          {[]string{"a=1", "./a=2"}, "twice"},
		"a file and a directory":       {[]string{"a=1", "a/"}, "twice"},
		"a directory and a file":       {[]string{"a/", "a=1"}, "twice"},
		"the same by another way":      {[]string{"d/", "l->d", "d/a=1", "l/a=2"}, "twice"},
		"below a file":                 {[]string{"a=1", "a/b=2"}, "no directory"},
		"symlinks in a circle":         {[]string{"a->b", "b->a", "a/c=1"}, "leads to itself"},
		"a whiteout of what is above":  {[]string{"d/.wh..."}, "of nothing that can be"},
		"a whiteout of this":           {[]string{"d/.wh.."}, "of nothing that can be"},
		"a whiteout of nothing":        {[]string{".wh."}, "of nothing that can be"},
		"a name that is too long":      {[]string{strings.Repeat("x", 256) + "=1"}, "255 are allowed"},
		"a path that is too long":      {[]string{strings.Repeat("x/", 2100) + "y=1"}, "4095 are allowed"},
		"too deep":                     {[]string{strings.Repeat("x/", 300) + "y=1"}, "256 are allowed"},
		"deeper by a symlink":          {[]string{strings.Repeat("x/", 200) + "y=1", "l->" + strings.Repeat("x/", 200), "l/" + strings.Repeat("z/", 100) + "y=1"}, "more than 256 parts"},
		"too many files":               {many, "more than the 1000 files"},
		"too many bytes":               {[]string{"a=" + strings.Repeat("x", 1<<20), "b=1"}, "more than the 1048576 bytes"},
		"a root that is no directory":  {[]string{".->etc"}, "root that is no directory"},
		"a symlink that is too long":   {[]string{"a->" + strings.Repeat("x", 5000)}, "no name can be"},
		"more directories than counts": {[]string{strings.Repeat("a/", 250) + "x=", strings.Repeat("b/", 250) + "x=", strings.Repeat("c/", 250) + "x=", strings.Repeat("d/", 250) + "x="}, "more than the 1000 files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := flattened(t, limits, layer(t, test.entries...))
			var problem *wire.Problem
			if !errors.As(err, &problem) || problem.Reason != wire.Invalid || !strings.Contains(problem.Message, test.said) {
				t.Errorf("said %v", err)
			}
		})
	}
}

func TestAnOpaqueDirectoryIsLookedThroughOnce(t *testing.T) {
	entries := []string{"d/"}
	for number := range 900 {
		entries = append(entries, fmt.Sprintf("d/f%d=", number))
	}
	for range 900 {
		entries = append(entries, "d/.wh..wh..opq")
	}
	if _, err := flattened(t, limits, layer(t, entries...)); err != nil {
		t.Error(err)
	}
}

func TestSymlinksThatLeadAboutForLongAreLeft(t *testing.T) {
	var entries []string
	for number := range 30 {
		entries = append(entries, fmt.Sprintf("l%d->%sl%d", number, strings.Repeat("./", 2000), number+1))
	}
	for number := range 100 {
		entries = append(entries, fmt.Sprintf("l0/f%d=", number))
	}
	if _, err := flattened(t, limits, layer(t, entries...)); err == nil || !strings.Contains(err.Error(), "lead from one") {
		t.Errorf("said %v", err)
	}
}

func TestWhatIsNoArchiveIsRefused(t *testing.T) {
	whole := layer(t, "a="+strings.Repeat("x", 2000))
	for name, archive := range map[string][]byte{
		"noise":     []byte(strings.Repeat("no tar ", 500)),
		"truncated": whole[:1500],
	} {
		if _, err := flattened(t, limits, archive); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEverythingOfAFileIsKept(t *testing.T) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	headers := []*tar.Header{
		{Name: "file", Typeflag: tar.TypeReg, Mode: 0o6751, Uid: 1000, Gid: 1 << 31, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 5},
		{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "sda", Typeflag: tar.TypeBlock, Mode: 0o660, Gid: 6, Devmajor: 8, Devminor: 1 << 19},
		{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
	}
	for _, header := range headers {
		header.Format = tar.FormatPAX
		if err := writer.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
	}
	writer.Close()
	made := flatFile(t, archive.Bytes())
	reader := tar.NewReader(made)
	found := map[string]*tar.Header{}
	for header, err := reader.Next(); err == nil; header, err = reader.Next() {
		found[strings.TrimPrefix(header.Name, "./")] = header
	}
	for _, want := range headers {
		got := found[want.Name]
		if got == nil || got.Typeflag != want.Typeflag || got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid ||
			got.Devmajor != want.Devmajor || got.Devminor != want.Devminor {
			t.Errorf("%+v became %+v", want, got)
		}
	}
	const capability = "SCHILY.xattr.security.capability"
	if found["file"].PAXRecords[capability] != headers[0].PAXRecords[capability] {
		t.Errorf("the capability became %q", found["file"].PAXRecords[capability])
	}
}

func flatFile(t *testing.T, archive []byte) *os.File {
	t.Helper()
	directory := t.TempDir()
	source := create(t, directory, "source", archive)
	reader, err := NewReader(source)
	if err != nil {
		t.Fatal(err)
	}
	spill := create(t, directory, "spill", nil)
	tree := NewTree(Limits{1000, 1 << 30}, spill)
	if err := tree.Apply(context.Background(), reader); err != nil {
		t.Fatal(err)
	}
	made := create(t, directory, "made", nil)
	if err := tree.WriteArchive(context.Background(), made, func(number int) *os.File {
		if number == Spilled {
			return spill
		}
		return source
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := made.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return made
}

func TestSparseFilesOfEveryFormatHaveTheirContent(t *testing.T) {
	const size = 1<<20 + 77
	want := make([]byte, size)
	copy(want[70000:], "in the middle")
	copy(want[size-4:], "last")
	for _, format := range []string{"gnu", "pax"} {
		directory := t.TempDir()
		file := create(t, directory, "sparse", nil)
		for _, at := range []int64{70000, size - 4} {
			if _, err := file.WriteAt(bytes.TrimRight(want[at:min(at+13, size)], "\x00"), at); err != nil {
				t.Fatal(err)
			}
		}
		made, err := exec.Command("tar", "--create", "--sparse", "--format="+format, "--directory="+directory, "sparse").Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(made) > size/2 {
			t.Fatalf("tar has made %d bytes", len(made))
		}
		archive := flatFile(t, made)
		reader := tar.NewReader(archive)
		for header, err := reader.Next(); ; header, err = reader.Next() {
			if err != nil {
				t.Fatal(err)
			}
			if header.Name == "./sparse" {
				break
			}
		}
		if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other content (%v)", format, err)
		}
	}
}

func FuzzLayers(f *testing.F) {
	for _, entries := range [][]string{
		{"d/", "d/a=1", "b->d", "c=>d/a", "b/x=2"}, {"d/.wh..wh..opq", ".wh.b", "d/n=3"}, {"../x=1"}, {"a->b", "b->a", "a/c=1"},
	} {
		f.Add(layer(f, entries...), layer(f, "d/", "d/y=1", ".wh.c"))
	}
	f.Fuzz(func(t *testing.T, lower []byte, upper []byte) {
		found, err := flattened(t, limits, lower, upper)
		var problem *wire.Problem
		if err != nil && !errors.As(err, &problem) {
			t.Fatalf("not told as a problem: %v", err)
		}
		for name := range found {
			for part := range strings.SplitSeq(strings.TrimSuffix(name, "/"), "/") {
				if part == ".." || part == "." || part == "" && name != "" {
					t.Fatalf("the name %q", name)
				}
			}
		}
	})
}
