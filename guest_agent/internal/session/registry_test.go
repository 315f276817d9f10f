package session

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/reap"
)

var (
	reaper = reap.New()
	size   = command.Size{Rows: 24, Columns: 80}
)

func shell(script string) Start {
	return func() (*command.Terminal, error) {
		return command.StartTerminal(reaper, command.Spec{Argv: []string{"sh", "-c", script}}, size)
	}
}

// registry gives one whose sessions are gone when the test ends.
func registry(t *testing.T) *Registry {
	t.Helper()
	r := NewRegistry()
	t.Cleanup(func() {
		for _, info := range r.List() {
			if session, err := r.Find(info.ID); err == nil {
				session.Kill()
			}
		}
	})
	return r
}

func create(t *testing.T, r *Registry, id, script string) *Session {
	t.Helper()
	session, err := r.Create(id, size, Limits{}, shell(script))
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func attach(t *testing.T, session *Session, steal bool) *Viewer {
	t.Helper()
	viewer, err := session.Attach(steal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { viewer.Leave(); viewer.Input.Close() })
	return viewer
}

// until collects output up to and with a text.
func until(t *testing.T, viewer *Viewer, text string) string {
	t.Helper()
	buffer, said := make([]byte, scrollback), ""
	for !strings.Contains(said, text) {
		event, size := viewer.Next(buffer)
		if event != Replay && event != Output {
			t.Fatalf("event %d after %q, without %q", event, said, text)
		}
		said += string(buffer[:size])
	}
	return said
}

func code(err error) agentpb.ErrorCode {
	var known *failure.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return agentpb.ErrorCode_ERROR_CODE_UNSPECIFIED
}

func TestAnIdIsMadeUpAndATakenOneIsRefused(t *testing.T) {
	r := registry(t)
	first, second := create(t, r, "", "cat"), create(t, r, "", "cat")
	if first.Info().ID == second.Info().ID {
		t.Error("the same id twice")
	}
	if _, err := r.Create(first.Info().ID, size, Limits{}, shell("cat")); code(err) != agentpb.ErrorCode_ERROR_CODE_SESSION_EXISTS {
		t.Errorf("taken: %v", err)
	}
	for _, id := range []string{"a b", "../x", strings.Repeat("a", 65), "ü", "a\n"} {
		if _, err := r.Create(id, size, Limits{}, shell("cat")); code(err) != agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestTheListIsInOrderOfAge(t *testing.T) {
	r := registry(t)
	for _, id := range []string{"c", "a", "b"} {
		create(t, r, id, "cat")
	}
	ids := ""
	for _, info := range r.List() {
		ids += info.ID
	}
	if ids != "cab" {
		t.Errorf("%s", ids)
	}
}

func TestAKilledSessionIsForgotten(t *testing.T) {
	r := registry(t)
	create(t, r, "deaf", "trap '' HUP TERM INT; while :; do sleep 1000; done").Kill()
	if _, err := r.Find("deaf"); code(err) != agentpb.ErrorCode_ERROR_CODE_SESSION_NOT_FOUND {
		t.Errorf("%v", err)
	}
}

func TestOnlyOneIsAttachedUnlessItIsStolen(t *testing.T) {
	session := create(t, registry(t), "one", "cat")
	first := attach(t, session, false)
	if _, err := session.Attach(false); code(err) != agentpb.ErrorCode_ERROR_CODE_SESSION_ATTACHED {
		t.Errorf("%v", err)
	}
	attach(t, session, true)
	if event, _ := first.Next(make([]byte, scrollback)); event != Stolen {
		t.Errorf("event %d", event)
	}
	first.Leave()
	if !session.Info().Attached {
		t.Error("the old viewer detached the new one")
	}
}

func TestAStalledViewerDoesNotHoldTheSessionUpAndGoesOnWithAReplay(t *testing.T) {
	session := create(t, registry(t), "busy", "read x; yes | head -c 300000; echo; echo end; cat")
	viewer := attach(t, session, false)
	if _, err := viewer.Input.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	until(t, viewer, "y")
	for !ended(session) {
		time.Sleep(time.Millisecond)
	}
	event, _ := viewer.Next(make([]byte, scrollback))
	if event != Replay {
		t.Errorf("event %d", event)
	}
}

// ended tells whether the last of the output is in the ring.
func ended(session *Session) bool {
	session.mutex.Lock()
	defer session.mutex.Unlock()
	return strings.HasSuffix(string(content(&session.output)), "end\r\n")
}

func TestWhatIsSaidBeforeAttachingIsReplayedAndWhatIsSaidAfterIsNot(t *testing.T) {
	session := create(t, registry(t), "echo", "cat")
	buffer := make([]byte, scrollback)
	for _, want := range []Event{Output, Replay} {
		viewer := attach(t, session, false)
		if want == Output {
			if _, err := viewer.Input.WriteString("x\n"); err != nil {
				t.Fatal(err)
			}
		}
		if event, _ := viewer.Next(buffer); event != want {
			t.Errorf("event %d, not %d", event, want)
		}
		viewer.Leave()
	}
}

func TestAViewerWhoReadsMissesNothing(t *testing.T) {
	session := create(t, registry(t), "long", "seq 100000; echo end")
	said := until(t, attach(t, session, false), "end")
	if lines := strings.Count(said, "\r\n"); lines < 100000 {
		t.Errorf("%d lines", lines)
	}
}
