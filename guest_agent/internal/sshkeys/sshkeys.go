// Package sshkeys says who may come in by ssh, without taking anything from a file that is the user's.
package sshkeys

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/files"
	"ingle.dev/guest_agent/internal/users"
)

const (
	directory = ".ssh"
	file      = "authorized_keys"

	// mark ends each line that is ours to change; to sshd(8) it is part of the key's comment. A line says by itself
	// whose it is: with a block between markers, a lost marker would make everything behind it ours.
	mark = "# managed by ingle"

	directoryMode = 0o700
	fileMode      = 0o600

	// longestKey holds any key there is: RSA with 16384 bits has some 2800 characters.
	longestKey = 16 * 1024
	// longestFile is more than anybody's authorized_keys.
	longestFile = 1024 * 1024
)

// Check says what is wrong with a line of the form "TYPE BASE64 [COMMENT]".
func Check(key string) error {
	if len(key) > longestKey || strings.ContainsFunc(key, func(char rune) bool { return char < ' ' || char == 0x7f }) {
		return fmt.Errorf("SSH key %.40q: one line of at most %d printable characters is allowed", key, longestKey)
	}
	fields := strings.Fields(key)
	if len(fields) < 2 {
		return fmt.Errorf("SSH key %.40q: it is not \"TYPE BASE64 [COMMENT]\"", key)
	}
	// The key begins with its type, after four bytes of length; see RFC 4253, section 6.6.
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(blob) < 4 {
		return fmt.Errorf("SSH key %.40q: its second word is no base64", key)
	}
	length, rest := uint64(binary.BigEndian.Uint32(blob)), blob[4:]
	if length >= uint64(len(rest)) || string(rest[:length]) != fields[0] {
		return fmt.Errorf("SSH key %.40q: it does not hold a key of type %.40s", key, fields[0])
	}
	return nil
}

// Install makes these keys the only managed ones of an account, in ~/.ssh/authorized_keys, and gives both that file and
// its directory the modes that sshd insists on. It acts with the account's own rights and follows no symbolic link
// below the home. Errors that a caller can do something about are *failure.Error.
func Install(account users.Account, keys []string) error {
	if err := makeHome(account); err != nil {
		return err
	}
	return account.Do(func() error { return install(account.Home, keys) })
}

// makeHome makes root's home where an image has none; other homes are for the image to bring.
func makeHome(account users.Account) error {
	info, err := os.Stat(account.Home)
	switch {
	case err == nil && info.IsDir():
		return nil
	case errors.Is(err, os.ErrNotExist) && account.UID == 0 && filepath.IsAbs(account.Home):
		return os.MkdirAll(account.Home, directoryMode)
	}
	return failure.New(agentpb.ErrorCode_ERROR_CODE_DIRECTORY_NOT_FOUND,
		"the SSH keys of %s need a home: no directory %q in the guest", account.Name, account.Home)
}

func install(home string, keys []string) error {
	path := filepath.Join(home, directory)
	if len(keys) == 0 {
		if _, err := os.Lstat(filepath.Join(path, file)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	if err := os.Mkdir(path, directoryMode); err != nil && !errors.Is(err, os.ErrExist) {
		return files.Explain(err, path)
	}
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	held, err := unix.Open(path, flags, 0)
	if err == unix.ENOTDIR { // what O_DIRECTORY makes of a symbolic link
		if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&os.ModeSymlink != 0 {
			err = unix.ELOOP
		}
	}
	if err != nil {
		return files.Explain(err, path)
	}
	defer unix.Close(held)
	if err := unix.Fchmod(held, directoryMode); err != nil {
		return files.Explain(err, path)
	}
	path = filepath.Join(path, file)
	before, mode, err := read(held)
	if err != nil {
		return files.Explain(err, path)
	}
	after := merged(before, keys)
	if bytes.Equal(before, after) && mode == fileMode {
		return nil
	}
	wanted := uint32(fileMode)
	return files.ReplaceAt(held, path, files.Attributes{Mode: &wanted, UID: -1, GID: -1}, bytes.NewReader(after))
}

// read answers nothing for a file that isn't there.
func read(directory int) ([]byte, os.FileMode, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	descriptor, err := unix.Openat(directory, file, flags, 0)
	if err == unix.ENOENT {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	opened := os.NewFile(uintptr(descriptor), file)
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, unix.ENXIO
	}
	content, err := io.ReadAll(io.LimitReader(opened, longestFile+1))
	if err == nil && len(content) > longestFile {
		err = unix.EFBIG
	}
	return content, info.Mode().Perm(), err
}

// merged is the file with our lines replaced. All others stay, byte for byte.
func merged(before []byte, keys []string) []byte {
	var after bytes.Buffer
	for line := range bytes.Lines(before) {
		if !bytes.HasSuffix(bytes.TrimSpace(line), []byte(mark)) {
			after.Write(line)
		}
	}
	if after.Len() > 0 && !bytes.HasSuffix(after.Bytes(), []byte("\n")) {
		after.WriteByte('\n')
	}
	for _, key := range keys {
		after.WriteString(strings.TrimSpace(key) + " " + mark + "\n")
	}
	return after.Bytes()
}
