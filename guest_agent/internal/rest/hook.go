package rest

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/command"
)

const (
	// hookDirectory is where the guest's programs are that must know.
	hookDirectory = "/etc/ingle/hooks"

	hookPatience = 10 * time.Second
	// hookOutput is so much of what one says as is told.
	hookOutput = 4 * 1024
	// cannotRun is what a shell says of such a program.
	cannotRun = 126
	// drainPatience is how long the end of what it said may take to arrive, while others have its output open.
	drainPatience = 100 * time.Millisecond
)

// hook runs a program of the guest's, if there is one.
func (g *Guest) hook(name string, environment map[string]string) *agentpb.HookResult {
	path := filepath.Join(hookDirectory, name)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return nil
	}
	started, err := command.Start(g.Reaper, command.Spec{
		Argv: []string{path}, Env: environment, Directory: "/", Group: g.Groups.Hooks,
	})
	if err != nil {
		return &agentpb.HookResult{ExitCode: cannotRun, Output: []byte(err.Error())}
	}
	said := keepLast(started.Stdout, started.Stderr)
	result := &agentpb.HookResult{}
	timer := time.AfterFunc(hookPatience, func() { started.Condemn() })
	<-started.Done()
	result.TimedOut = !timer.Stop()
	status := started.Status()
	if result.ExitCode = uint32(status.ExitStatus()); status.Signaled() {
		result.ExitCode = 128 + uint32(status.Signal())
	}
	g.Groups.LeaveHooks()
	result.Output = said()
	return result
}

// tail keeps the end of what is written.
type tail struct {
	mutex sync.Mutex
	kept  []byte
}

func (t *tail) Write(data []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.kept = append(t.kept, data...)
	if extra := len(t.kept) - hookOutput; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(data), nil
}

// keepLast reads until nobody has the other ends any more: what a hook leaves behind is not to die of a broken pipe. The
// answer gives what was said last so far.
func keepLast(outputs ...*os.File) (said func() []byte) {
	kept := &tail{}
	var reading sync.WaitGroup
	for _, output := range outputs {
		reading.Add(1)
		go func() {
			defer reading.Done()
			defer output.Close()
			_, _ = io.Copy(kept, output)
		}()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reading.Wait()
	}()
	return func() []byte {
		select {
		case <-ended:
		case <-time.After(drainPatience):
		}
		kept.mutex.Lock()
		defer kept.mutex.Unlock()
		return bytes.Clone(kept.kept)
	}
}
