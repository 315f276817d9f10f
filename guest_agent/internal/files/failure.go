// Package files reads, writes, lists and copies files. It runs with the rights of whoever is asked for (users.Account's
// Do), and says by code why the kernel refused.
package files

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

var codes = map[unix.Errno]agentpb.ErrorCode{
	unix.ENOENT:       agentpb.ErrorCode_ERROR_CODE_FILE_NOT_FOUND,
	unix.EEXIST:       agentpb.ErrorCode_ERROR_CODE_FILE_EXISTS,
	unix.EISDIR:       agentpb.ErrorCode_ERROR_CODE_IS_A_DIRECTORY,
	unix.ENOTDIR:      agentpb.ErrorCode_ERROR_CODE_NOT_A_DIRECTORY,
	unix.ENOTEMPTY:    agentpb.ErrorCode_ERROR_CODE_DIRECTORY_NOT_EMPTY,
	unix.EACCES:       agentpb.ErrorCode_ERROR_CODE_FILE_PERMISSION_DENIED,
	unix.EPERM:        agentpb.ErrorCode_ERROR_CODE_FILE_PERMISSION_DENIED,
	unix.ENOSPC:       agentpb.ErrorCode_ERROR_CODE_NO_SPACE,
	unix.EDQUOT:       agentpb.ErrorCode_ERROR_CODE_NO_SPACE,
	unix.EROFS:        agentpb.ErrorCode_ERROR_CODE_READ_ONLY_FILE_SYSTEM,
	unix.ELOOP:        agentpb.ErrorCode_ERROR_CODE_SYMLINK_REFUSED,
	unix.ENAMETOOLONG: agentpb.ErrorCode_ERROR_CODE_FILE_NAME_TOO_LONG,
	unix.ENXIO:        agentpb.ErrorCode_ERROR_CODE_NOT_A_REGULAR_FILE,
	unix.EBUSY:        agentpb.ErrorCode_ERROR_CODE_FILE_BUSY,
	unix.ETXTBSY:      agentpb.ErrorCode_ERROR_CODE_FILE_BUSY,
	unix.EXDEV:        agentpb.ErrorCode_ERROR_CODE_CROSS_DEVICE,
	unix.EFBIG:        agentpb.ErrorCode_ERROR_CODE_FILE_TOO_LARGE,
	unix.EOPNOTSUPP:   agentpb.ErrorCode_ERROR_CODE_FILE_NOT_SUPPORTED,
	unix.ENOSYS:       agentpb.ErrorCode_ERROR_CODE_FILE_NOT_SUPPORTED,
	unix.EMFILE:       agentpb.ErrorCode_ERROR_CODE_OUT_OF_RESOURCES,
	unix.ENFILE:       agentpb.ErrorCode_ERROR_CODE_OUT_OF_RESOURCES,
	unix.ENOMEM:       agentpb.ErrorCode_ERROR_CODE_OUT_OF_RESOURCES,
}

// explain tells by code what the kernel said about a path. What is no word of the kernel about a file stays as it is.
func explain(err error, path string) error {
	var known *failure.Error
	var connection *net.OpError
	var errno unix.Errno
	if err == nil || errors.As(err, &known) || errors.As(err, &connection) || !errors.As(err, &errno) {
		return err
	}
	code, found := codes[errno]
	if !found {
		code = agentpb.ErrorCode_ERROR_CODE_FILE_IO_FAILED
	}
	return failure.New(code, "%s: %v", path, errno)
}

func notRegular(path string) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_NOT_A_REGULAR_FILE, "%s: not a regular file", path)
}

func badRequest(format string, arguments ...any) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST, format, arguments...)
}
