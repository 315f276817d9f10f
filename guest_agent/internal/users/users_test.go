package users

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const passwd = `root:x:0:0:root:/root:/bin/bash
ember:x:1000:100:Ember,,,:/home/ember:/bin/zsh
plain:x:1001:1001::/home/plain:
# a comment, and a broken line
broken:x:no:1:::
+nis
`

const group = `root:x:0:
users:x:100:ember
video:x:44:plain,ember
wheel:x:10:ember
fire:x:7:embers
`

func database(t *testing.T) Database {
	t.Helper()
	directory := t.TempDir()
	files := Database{filepath.Join(directory, "passwd"), filepath.Join(directory, "group")}
	for path, content := range map[string]string{files.Passwd: passwd, files.Group: group} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestLookup(t *testing.T) {
	root := Account{Name: "root", Groups: []uint32{0}, Home: "/root", Shell: "/bin/bash"}
	ember := Account{
		Name: "ember", UID: 1000, GID: 100, Groups: []uint32{100, 44, 10}, Home: "/home/ember", Shell: "/bin/zsh",
	}
	plain := Account{
		Name: "plain", UID: 1001, GID: 1001, Groups: []uint32{1001, 44}, Home: "/home/plain", Shell: "/bin/sh",
	}
	for user, want := range map[string]Account{
		"": root, "root": root, "0": root,
		"ember": ember, "1000": ember,
		"plain": plain,
		"4242":  {Name: "4242", UID: 4242, Groups: []uint32{0}, Home: "/", Shell: "/bin/sh"}, // as Docker has it
	} {
		got, err := database(t).Lookup(user)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", user, got, err)
		}
	}
}

func TestAGroupIsTheOnlyOne(t *testing.T) {
	for user, want := range map[string]struct {
		name   string
		groups []uint32
	}{
		"ember":       {"ember", []uint32{100, 44, 10}},
		"ember:video": {"ember", []uint32{44}},
		"1000:44":     {"ember", []uint32{44}},
		"ember:4711":  {"ember", []uint32{4711}},
		"4242:wheel":  {"4242", []uint32{10}},
		"0:0":         {"root", []uint32{0}},
		":wheel":      {"root", []uint32{10}},
	} {
		got, err := database(t).LookupAs(user)
		if err != nil || got.Name != want.name || got.GID != want.groups[0] || !reflect.DeepEqual(got.Groups, want.groups) {
			t.Errorf("%q: %+v, %v", user, got, err)
		}
	}
}

func TestAGroupThatIsNotThereIsNotFound(t *testing.T) {
	for _, group := range []string{"nogroup-here", "-1", "4294967296", "", "video:wheel"} {
		var notFound GroupNotFoundError
		if _, err := database(t).LookupAs("ember:" + group); !errors.As(err, &notFound) || notFound.Name != group {
			t.Errorf("%q: %v", group, err)
		}
	}
	var noUser NotFoundError
	if _, err := database(t).LookupAs("nobody:wheel"); !errors.As(err, &noUser) {
		t.Errorf("%v", err)
	}
}

func TestWhoIsNotThereIsNotFound(t *testing.T) {
	for _, user := range []string{"nobody", "broken", "-1", "4294967296", "ember:x"} {
		var notFound NotFoundError
		if _, err := database(t).Lookup(user); !errors.As(err, &notFound) || notFound.Name != user {
			t.Errorf("%q: %v", user, err)
		}
	}
}

func TestRootNeedsNoFiles(t *testing.T) {
	nowhere := Database{"/no/such/passwd", "/no/such/group"}
	want := Account{Name: "root", Groups: []uint32{0}, Home: "/root", Shell: "/bin/sh"}
	for _, user := range []string{"", "root", "0"} {
		if got, err := nowhere.Lookup(user); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", user, got, err)
		}
	}
}
