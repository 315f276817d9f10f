package sshkeys

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/users"
)

func key(comment string) string {
	const kind = "ssh-ed25519"
	blob := "\x00\x00\x00\x0b" + kind + "\x00\x00\x00\x20" + strings.Repeat("k", 32)
	return kind + " " + base64.StdEncoding.EncodeToString([]byte(blob)) + " " + comment
}

// me is an account of whoever runs the test, with a home of its own.
func me(t *testing.T) users.Account {
	t.Helper()
	return users.Account{Name: "me", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: t.TempDir()}
}

func keysOf(t *testing.T, account users.Account) string {
	t.Helper()
	path := filepath.Join(account.Home, ".ssh", "authorized_keys")
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestKeysAreInstalledReplacedAndTakenAway(t *testing.T) {
	account := me(t)
	line := func(comment string) string { return key(comment) + " # managed by ingle\n" }
	for _, step := range []struct {
		keys []string
		want string
	}{
		{[]string{key("one"), key("two")}, line("one") + line("two")},
		{[]string{key("two")}, line("two")},
		{nil, ""},
	} {
		if err := Install(account, step.keys); err != nil {
			t.Fatal(err)
		}
		if got := keysOf(t, account); got != step.want {
			t.Errorf("%q", got)
		}
	}
}

func TestTheUsersOwnLinesStayWhateverTheyAre(t *testing.T) {
	account := me(t)
	mine := "# mine\n\n" + key("mine") + "\nnot a key \xff\n" + key("last, without a line's end")
	if err := os.Mkdir(filepath.Join(account.Home, ".ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(account.Home, ".ssh", "authorized_keys")
	if err := os.WriteFile(path, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Install(account, []string{key("theirs")}); err != nil {
			t.Fatal(err)
		}
		if got := keysOf(t, account); got != mine+"\n"+key("theirs")+" # managed by ingle\n" {
			t.Errorf("%q", got)
		}
	}
	if err := Install(account, nil); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(t, account); got != mine+"\n" {
		t.Errorf("%q", got)
	}
}

func TestTheSameKeysAgainWriteNothing(t *testing.T) {
	account := me(t)
	inode := func() uint64 {
		if err := Install(account, []string{key("one")}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(account.Home, ".ssh", "authorized_keys"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	if inode() != inode() {
		t.Error("it is another file now")
	}
}

func TestNoKeysMakeNoFile(t *testing.T) {
	account := me(t)
	if err := Install(account, nil); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(account.Home); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestSymbolicLinksAreRefusedAndWhatTheyLeadToIsUntouched(t *testing.T) {
	for _, link := range []string{".ssh", ".ssh/authorized_keys"} {
		account, elsewhere := me(t), t.TempDir()
		target := filepath.Join(elsewhere, "target")
		path := filepath.Join(account.Home, link)
		if link == ".ssh" {
			target = elsewhere
		} else if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(target, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(target)
		if err != nil {
			t.Fatal(err)
		}
		var refused *failure.Error
		if err := Install(account, []string{key("one")}); !errors.As(err, &refused) ||
			refused.Code != agentpb.ErrorCode_ERROR_CODE_SYMLINK_REFUSED {
			t.Errorf("%s: %v", link, err)
		}
		if after, err := os.Stat(target); err != nil || after.Mode() != before.Mode() || after.ModTime() != before.ModTime() {
			t.Errorf("%s: %v, %v", link, after, err)
		}
	}
}

func TestAFifoIsRefusedAtOnce(t *testing.T) {
	account := me(t)
	path := filepath.Join(account.Home, ".ssh", "authorized_keys")
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	var refused *failure.Error
	if err := Install(account, []string{key("one")}); !errors.As(err, &refused) ||
		refused.Code != agentpb.ErrorCode_ERROR_CODE_NOT_A_REGULAR_FILE {
		t.Error(err)
	}
}

func TestAnAccountWithoutAHomeIsRefused(t *testing.T) {
	account := users.Account{Name: "nomad", UID: 4242, Home: "/no/such/home"}
	var refused *failure.Error
	if err := Install(account, []string{key("one")}); !errors.As(err, &refused) ||
		refused.Code != agentpb.ErrorCode_ERROR_CODE_DIRECTORY_NOT_FOUND {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	good := key("me@host")
	for _, accepted := range []string{good, strings.TrimSuffix(good, " me@host"), key("two words")} {
		if err := Check(accepted); err != nil {
			t.Error(err)
		}
	}
	for name, refused := range map[string]string{
		"empty":           "",
		"no key":          "ssh-ed25519",
		"another type":    strings.Replace(good, "ssh-ed25519", "ssh-rsa", 1),
		"no base64":       "ssh-ed25519 AAAA!",
		"cut off":         good[:24],
		"only the type":   "a " + base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x01a")),
		"a huge length":   "a " + base64.StdEncoding.EncodeToString([]byte("\xff\xff\xff\xffab")),
		"two lines":       good + "\n" + good,
		"a NUL":           good + "\x00",
		"options":         `command="sh" ` + good,
		"a private key":   "-----BEGIN OPENSSH PRIVATE KEY-----",
		"longer than any": good + strings.Repeat("x", longestKey),
	} {
		if Check(refused) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
