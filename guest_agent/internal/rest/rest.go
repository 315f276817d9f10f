// Package rest has everything in a guest but the agent stand still, so that its memory and its disk can be kept, and go on.
package rest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/groups"
	"ingle.dev/guest_agent/internal/reap"
)

const (
	// syncPatience is how long writing may take: a file system whose server doesn't answer never ends.
	syncPatience = 20 * time.Second
	// freezePatience is how long a process may take to leave the kernel, for which each has to have its turn: of a guest
	// with little processor time and many that run, that takes seconds.
	freezePatience = 15 * time.Second
)

// Guest is the machine whose agent this is.
type Guest struct {
	Reaper *reap.Reaper
	Groups *groups.Groups
}

// Rests tells whether the guest does, by an earlier agent say.
func (g *Guest) Rests() bool { return g.Groups.Frozen() }

// Rest has it stand still, after the hook for that. An error leaves it as it was.
func (g *Guest) Rest(environment map[string]string) (*agentpb.HookResult, error) {
	told := g.hook("suspend", environment)
	if err := synced(unix.Sync); err != nil {
		return nil, err
	}
	g.Reaper.Hold()
	err := g.Groups.Freeze(freezePatience)
	if err == nil {
		// What was written in between. Of the disk alone: another file system's server may be frozen by now.
		if err = synced(syncRoot); err != nil {
			err = errors.Join(err, g.Groups.Thaw())
		}
	}
	if err != nil {
		g.Reaper.Release()
		return nil, restless(err)
	}
	return told, nil
}

// Thaw has it go on, after the hook of that name; empty: none.
func (g *Guest) Thaw(hook string, environment map[string]string) (*agentpb.HookResult, error) {
	var told *agentpb.HookResult
	if hook != "" {
		if err := g.Groups.ThawHooks(); err != nil {
			return nil, err
		}
		told = g.hook(hook, environment)
	}
	if err := g.Groups.Thaw(); err != nil {
		return nil, err
	}
	g.Reaper.Release()
	return told, nil
}

func syncRoot() {
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Syncfs(root)
		_ = unix.Close(root)
	}
}

// synced waits for it, but not for ever.
func synced(sync func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		sync()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(syncPatience):
		return restless(fmt.Errorf("what is not on the disk yet was not written within %s", syncPatience))
	}
}

func restless(err error) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_RESTLESS, "%v", err)
}

// Process is an agent that is an ordinary process: of the machine, only what it has started stands still, and there are
// no hooks.
type Process struct{ Reaper *reap.Reaper }

// Rests is never so when it begins.
func (p *Process) Rests() bool { return false }

// Rest stops the process groups of its children.
func (p *Process) Rest(map[string]string) (*agentpb.HookResult, error) {
	p.Reaper.Hold()
	p.Reaper.SignalAll(unix.SIGSTOP)
	return nil, nil
}

// Thaw has them go on.
func (p *Process) Thaw(string, map[string]string) (*agentpb.HookResult, error) {
	p.Reaper.SignalAll(unix.SIGCONT)
	p.Reaper.Release()
	return nil, nil
}
