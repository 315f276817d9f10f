package wire

import (
	"strings"
	"testing"
)

func TestNothingThatATerminalObeysIsTold(t *testing.T) {
	problem := Fail(Invalid, "it has %s", "\x1b[31mred\a\r\n\u202e\u009b1m"+strings.Repeat("x", 5000))
	if strings.ContainsAny(problem.Message, "\x1b\a\r\n\u202e\u009b") || len(problem.Message) > 2010 {
		t.Errorf("told %q", problem.Message)
	}
}
