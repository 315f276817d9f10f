package files

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// largestUnpacked is what a file may grow to: a sparse one claims any size.
const largestUnpacked = 1 << 20

// FuzzUnpack: whatever an archive holds, nothing outside the directory that it is unpacked in is made, changed or
// removed, though links in there lead out.
func FuzzUnpack(f *testing.F) {
	for _, headers := range archives() {
		f.Add(archived(f, headers), true)
	}
	f.Add([]byte("no archive"), false)
	signal.Ignore(unix.SIGXFSZ)
	f.Fuzz(func(t *testing.T, archive []byte, preserve bool) {
		whole := t.TempDir()
		root := filepath.Join(whole, "root")
		defer makeRemovable(root)
		outside := map[string]string{"secret": "untouched", "directory/file": "untouched"}
		for name, content := range outside {
			write(t, filepath.Join(whole, name), content)
		}
		write(t, filepath.Join(root, "there"), "may be replaced")
		for name, target := range map[string]string{"up": "..", "away": whole + "/directory", "file": "../secret"} {
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Link(filepath.Join(whole, "secret"), filepath.Join(root, "same")); err != nil {
			t.Fatal(err)
		}
		before := described(t, whole)
		withFileSizeLimit(t, func() { _, _ = Unpack(root, "", preserve, bytes.NewReader(sealed(archive))) })
		if after := described(t, whole); after != before {
			t.Fatalf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// archives has one of every kind of entry, and names that lead astray.
func archives() [][]*tar.Header {
	when := time.Unix(1, 5)
	names := []string{"there", "new/deep/er", "up/secret", "away/file", "file", "same", "../secret", "/secret", "a/../../secret"}
	all := [][]*tar.Header{{}}
	for _, name := range names {
		all = append(all,
			[]*tar.Header{{Typeflag: tar.TypeReg, Name: name, Size: 3, Mode: 0o4755, ModTime: when}},
			[]*tar.Header{{Typeflag: tar.TypeDir, Name: name, Mode: 0, ModTime: when}},
			[]*tar.Header{
				{Typeflag: tar.TypeSymlink, Name: "link", Linkname: name, ModTime: when},
				{Typeflag: tar.TypeReg, Name: "link", Size: 1},
				{Typeflag: tar.TypeReg, Name: "link/within", Size: 1},
			},
			[]*tar.Header{
				{Typeflag: tar.TypeLink, Name: "hard", Linkname: name, Mode: 0o777, ModTime: when},
				{Typeflag: tar.TypeReg, Name: "hard", Size: 1},
			},
		)
	}
	return append(all,
		[]*tar.Header{{Typeflag: tar.TypeFifo, Name: "fifo"}, {Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		[]*tar.Header{{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "global"}}},
		[]*tar.Header{{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 60) + "name", Format: tar.FormatGNU}},
		[]*tar.Header{{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 60) + "name", Uid: 1 << 30, Format: tar.FormatPAX}},
	)
}

func archived(t testing.TB, headers []*tar.Header) []byte {
	t.Helper()
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, header := range headers {
		if err := writer.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write(bytes.Repeat([]byte("x"), int(header.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// sealed gives every header its right checksum, which a fuzzer would hardly ever hit: an octal number at 148, the sum of
// the header's bytes with blanks in its place. The size, an octal number at 124, says where the next header is.
func sealed(archive []byte) []byte {
	result := bytes.Clone(archive)
	for rest := result; len(rest) >= tarBlock; {
		header := rest[:tarBlock]
		rest = rest[tarBlock:]
		if bytes.Count(header, []byte{0}) == tarBlock {
			continue
		}
		copy(header[148:156], "        ")
		sum := 0
		for _, value := range header {
			sum += int(value)
		}
		copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
		size, _ := strconv.ParseUint(strings.Trim(string(header[124:136]), " \x00"), 8, 31)
		rest = rest[min(len(rest), (int(size)+tarBlock-1)/tarBlock*tarBlock):]
	}
	return result
}

// described is all there is in a directory but in its "root".
func described(t *testing.T, directory string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var info unix.Stat_t
		if err := unix.Lstat(path, &info); err != nil {
			return err
		}
		if entry.Name() == "root" {
			fmt.Fprintf(&text, "%s: inode %d\n", path, info.Ino)
			return fs.SkipDir
		}
		content := []byte(nil)
		if entry.Type().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&text, "%s: inode %d mode %o owner %d:%d modified %d.%d %q\n",
			path, info.Ino, info.Mode, info.Uid, info.Gid, info.Mtim.Sec, info.Mtim.Nsec, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func withFileSizeLimit(t *testing.T, work func()) {
	t.Helper()
	var former unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &former); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: largestUnpacked, Max: former.Max})
	defer set(former)
	work()
}

// makeRemovable opens directories whose mode keeps their owner out.
func makeRemovable(root string) {
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}
