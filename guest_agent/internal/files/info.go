package files

import (
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

const permissions = 0o7777

var types = map[uint32]agentpb.FileType{
	unix.S_IFREG:  agentpb.FileType_FILE_TYPE_REGULAR,
	unix.S_IFDIR:  agentpb.FileType_FILE_TYPE_DIRECTORY,
	unix.S_IFLNK:  agentpb.FileType_FILE_TYPE_SYMLINK,
	unix.S_IFIFO:  agentpb.FileType_FILE_TYPE_FIFO,
	unix.S_IFSOCK: agentpb.FileType_FILE_TYPE_SOCKET,
	unix.S_IFCHR:  agentpb.FileType_FILE_TYPE_CHARACTER_DEVICE,
	unix.S_IFBLK:  agentpb.FileType_FILE_TYPE_BLOCK_DEVICE,
}

// Resolve makes a caller's path absolute: a relative one is below home.
func Resolve(home, path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", badRequest("path %q: it must not be empty, nor hold a NUL", path)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join("/", home, path)
	}
	return filepath.Clean(path), nil
}

// Stat describes a file; follow: what a symbolic link leads to.
func Stat(path string, follow bool) (*agentpb.FileInfo, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		flags = 0
	}
	info, err := describe(unix.AT_FDCWD, path, flags)
	return info, explain(err, path)
}

func describe(directory int, name string, flags int) (*agentpb.FileInfo, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(directory, name, &stat, flags); err != nil {
		return nil, err
	}
	info := &agentpb.FileInfo{
		Type:                types[stat.Mode&unix.S_IFMT],
		Mode:                stat.Mode & permissions,
		Uid:                 stat.Uid,
		Gid:                 stat.Gid,
		SizeBytes:           uint64(stat.Size),
		ModifiedNanoseconds: stat.Mtim.Nano(),
		Links:               uint64(stat.Nlink),
	}
	info.Name, info.RawName = utf8Only(filepath.Base(name))
	if info.Type == agentpb.FileType_FILE_TYPE_SYMLINK {
		target, err := readlink(directory, name)
		if err != nil {
			return nil, err
		}
		info.LinkTarget, info.RawLinkTarget = utf8Only(target)
	}
	return info, nil
}

func readlink(directory int, name string) (string, error) {
	buffer := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(directory, name, buffer)
	if err != nil {
		return "", err
	}
	return string(buffer[:size]), nil
}

// utf8Only answers what a field of text can hold, and, if that isn't all, the text itself.
func utf8Only(text string) (string, []byte) {
	if utf8.ValidString(text) {
		return text, nil
	}
	return strings.ToValidUTF8(text, "\uFFFD"), []byte(text)
}
