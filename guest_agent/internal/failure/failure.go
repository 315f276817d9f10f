// Package failure holds the errors that a caller is told by code.
package failure

import (
	"fmt"
	"strings"

	"ingle.dev/guest_agent/internal/agentpb"
)

// Error is why an operation was refused or failed.
type Error struct {
	Code    agentpb.ErrorCode
	Message string
}

func (e *Error) Error() string { return e.Message }

// longest is what of a message is told, in bytes: a name in it, of a command or a user say, may be longer than a frame.
const longest = 8 << 10

// New makes an Error.
func New(code agentpb.ErrorCode, format string, arguments ...any) *Error {
	message := fmt.Sprintf(format, arguments...)
	if len(message) > longest {
		message = strings.ToValidUTF8(message[:longest], "") + "…"
	}
	return &Error{Code: code, Message: message}
}
