// Package failure holds the errors that a caller is told by code.
package failure

import (
	"fmt"

	"ingle.dev/guest_agent/internal/agentpb"
)

// Error is why an operation was refused or failed.
type Error struct {
	Code    agentpb.ErrorCode
	Message string
}

func (e *Error) Error() string { return e.Message }

// New makes an Error.
func New(code agentpb.ErrorCode, format string, arguments ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, arguments...)}
}
