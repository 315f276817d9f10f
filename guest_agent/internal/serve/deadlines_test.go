package serve

import (
	"errors"
	"os"
	"testing"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/frame"
)

func TestADeadlineIsTheLatersTooAndNotThatOfWhoeverEnded(t *testing.T) {
	var d deadlines
	told := make(chan string, 3)
	begin := func(name string) func() error {
		element := d.begin(20*time.Millisecond, func() { told <- name })
		return func() error { return d.end(element) }
	}
	first, second := begin("first"), begin("second")
	if err := second(); err != nil {
		t.Error(err)
	}
	third := begin("third")
	if got := []string{<-told, <-told}; got[0] != "first" || got[1] != "third" {
		t.Errorf("%v", got)
	}
	for _, end := range []func() error{first, third} {
		if err := end(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v of one whose time was up", err)
		}
	}
	begin("again")
	if got := <-told; got != "again" || len(told) > 0 {
		t.Errorf("%q, and %d more", got, len(told))
	}
}

func TestACallerThatStopsAmidAnUploadIsGreetedFirst(t *testing.T) {
	theirs, ours := socketPair(t)
	server := &Server{Version: "tested", HelloTimeout: time.Minute}
	over := make(chan struct{})
	go func() { defer close(over); server.converse(ours) }()
	defer func() { theirs.Close(); <-over }()
	path := t.TempDir() + "/file"
	upload := &agentpb.Request{Operation: &agentpb.Request_WriteFile{WriteFile: &agentpb.WriteFileRequest{Path: path}}}
	said := framed(t, frame.Hello, marshal(t, &agentpb.Hello{ProtocolVersion: ProtocolVersion}))
	said = append(said, framed(t, frame.Request, marshal(t, upload))...)
	said = append(said, framed(t, frame.Data, []byte("half"))...)
	for _, step := range []struct {
		said []byte
		want frame.Type
	}{
		{said, frame.HelloOk},
		{framed(t, frame.DataEnd, nil), frame.Response},
	} {
		if _, err := theirs.Write(step.said); err != nil {
			t.Fatal(err)
		}
		if kind, _, err := frame.Read(theirs, frame.MaxPayload); kind != step.want || err != nil {
			t.Fatalf("frame of type %d, %v; not %d", kind, err, step.want)
		}
	}
}
