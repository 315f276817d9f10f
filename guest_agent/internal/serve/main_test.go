package serve

import (
	"os"
	"testing"

	"ingle.dev/guest_agent/internal/launch"
)

// TestMain is what main is to the agent: a command with a umask or limits begins as the same binary once more.
func TestMain(m *testing.M) {
	if os.Args[0] == launch.Name {
		launch.Run()
	}
	os.Exit(m.Run())
}
