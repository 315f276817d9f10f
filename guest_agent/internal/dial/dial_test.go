package dial

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

func TestWhyNobodyAnswersIsToldByCode(t *testing.T) {
	system := func(errno unix.Errno) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
	}
	for _, known := range []struct {
		err  error
		code agentpb.ErrorCode
	}{
		{system(unix.ECONNREFUSED), agentpb.ErrorCode_ERROR_CODE_CONNECTION_REFUSED},
		{system(unix.ENOENT), agentpb.ErrorCode_ERROR_CODE_SOCKET_NOT_FOUND},
		{system(unix.ENOTDIR), agentpb.ErrorCode_ERROR_CODE_SOCKET_NOT_FOUND},
		{system(unix.EACCES), agentpb.ErrorCode_ERROR_CODE_CONNECTION_NOT_PERMITTED},
		{system(unix.EPERM), agentpb.ErrorCode_ERROR_CODE_CONNECTION_NOT_PERMITTED},
		{system(unix.ETIMEDOUT), agentpb.ErrorCode_ERROR_CODE_CONNECTION_TIMED_OUT},
		{system(unix.EAGAIN), agentpb.ErrorCode_ERROR_CODE_CONNECTION_TIMED_OUT}, // a unix socket with a full backlog
		{context.DeadlineExceeded, agentpb.ErrorCode_ERROR_CODE_CONNECTION_TIMED_OUT},
		{system(unix.EHOSTUNREACH), agentpb.ErrorCode_ERROR_CODE_HOST_UNREACHABLE},
		{system(unix.ENETUNREACH), agentpb.ErrorCode_ERROR_CODE_HOST_UNREACHABLE},
		{&net.DNSError{Name: "x", IsNotFound: true}, agentpb.ErrorCode_ERROR_CODE_HOST_UNREACHABLE},
		{&net.DNSError{Name: "x", IsTimeout: true}, agentpb.ErrorCode_ERROR_CODE_CONNECTION_TIMED_OUT},
	} {
		var told *failure.Error
		if !errors.As(explain(known.err, "there", time.Second), &told) || told.Code != known.code {
			t.Errorf("%v: %v, wanted %v", known.err, told, known.code)
		} else if !strings.Contains(told.Message, "there") {
			t.Errorf("%q doesn't say where", told.Message)
		}
	}
}
