package session

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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
	for !ends(session, "end\r\n") {
		time.Sleep(time.Millisecond)
	}
	event, _ := viewer.Next(make([]byte, scrollback))
	if event != Replay {
		t.Errorf("event %d", event)
	}
}

// ends tells whether that is the last of the output so far.
func ends(session *Session, text string) bool {
	session.mutex.Lock()
	defer session.mutex.Unlock()
	return strings.HasSuffix(string(content(&session.output)), text)
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

// A full-screen program with half a character where the ring begins, that draws anew when it is told to.
const fullScreen = `printf '\033[?1049h\033[?2004h\033[?25l\033[7m'
trap 'stty size; echo drawn' WINCH
i=0; while [ $i -lt 3000 ]; do printf '\033[1;1Häöü€ä\033[1m%d\033[22m' $i; printf '€€€€€€€€€€'; i=$((i+1)); done
echo ready; while :; do sleep 0.05; done`

func TestWhoComesBackLateFindsTheTerminalAsItWas(t *testing.T) {
	session := create(t, registry(t), "editor", fullScreen)
	for !ends(session, "ready\r\n") {
		time.Sleep(time.Millisecond)
	}
	viewer := attach(t, session, false)
	buffer := make([]byte, scrollback)
	event, length := viewer.Next(buffer)
	said := string(buffer[:length])
	_, rest, found := strings.Cut(said, "\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[7m")
	if first, _ := utf8.DecodeRuneInString(rest); event != Replay || !found || first == utf8.RuneError {
		t.Errorf("event %d begins with %q", event, said[:60])
	}
	rows := fmt.Sprintf("%d %d\r\ndrawn", size.Rows, size.Columns)
	until(t, viewer, rows)
}
