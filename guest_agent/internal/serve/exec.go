package serve

import (
	"container/list"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/frame"
)

// How long output is waited for after the command ended while a process it left behind keeps the pipes open; without such
// a one the pipes end at once. A command that ended by itself may have another one finish its output, as docker has it;
// one that was killed left behind what was not to be.
const (
	outputGrace       = 2 * time.Second
	outputGraceKilled = 500 * time.Millisecond
)

// longestTimeout is the most milliseconds that a time.Duration holds: three centuries.
const longestTimeout = uint64(math.MaxInt64 / time.Millisecond)

// execution is one command and its caller.
type execution struct {
	*connection
	command    *command.Command
	stdin      *stdinQueue
	waitOutput bool
	killed     atomic.Bool // by its timeout, or since its caller left
	timedOut   atomic.Bool

	mutex sync.Mutex
	// drained says that the output has ended; late, unless nil, that it is waited for after the command's end.
	drained bool
	late    *list.Element
}

func (c *connection) exec(request *agentpb.ExecRequest) error {
	spec := command.Spec{
		Argv:      request.Argv,
		Env:       c.server.environment(request.Env),
		Directory: request.WorkingDirectory,
		User:      request.User,
		Stdin:     request.Stdin,
		Console:   request.OutputToConsole,
		Umask:     request.Umask,
		Limits:    request.Limits,
	}
	if request.StopSignal > 64 {
		return badRequest("stop signal %d: 1 to 64 is allowed", request.StopSignal)
	}
	timeout := time.Duration(min(request.TimeoutMilliseconds, longestTimeout)) * time.Millisecond
	if request.Detach {
		return c.detach(spec, request, timeout)
	}
	started, err := command.Start(c.server.Reaper, spec)
	if err != nil {
		return err
	}
	started.StopWith(syscall.Signal(request.StopSignal))
	e := &execution{
		connection: c, command: started, stdin: newStdinQueue(started.Stdin), waitOutput: request.WaitOutput,
	}
	return e.run(timeout)
}

// detach starts a command that only its timeout ends, whatever becomes of the caller.
func (c *connection) detach(spec command.Spec, request *agentpb.ExecRequest, timeout time.Duration) error {
	child, err := command.StartDetached(c.server.Reaper, spec)
	if err != nil {
		return err
	}
	child.StopWith(syscall.Signal(request.StopSignal))
	stop := func() bool { return true }
	if timeout > 0 {
		stop = time.AfterFunc(timeout, func() { child.Condemn() }).Stop
	}
	if request.Unnoticed {
		child.AfterExit(func() { stop() })
	} else {
		c.server.activity.execs.Add(1)
		child.AfterExit(func() {
			stop()
			c.server.activity.execs.Add(-1)
			c.server.activity.touch()
		})
	}
	return c.send(frame.Started, &agentpb.ExecStarted{Pid: uint32(child.Pid)})
}

// environment is what a command gets: that of all commands, and over it what the caller wants.
func (s *Server) environment(wanted map[string]string) map[string]string {
	s.commands.RLock()
	defer s.commands.RUnlock()
	env := make(map[string]string, len(s.Env)+len(wanted))
	maps.Copy(env, s.Env)
	maps.Copy(env, wanted)
	return env
}

func (e *execution) run(timeout time.Duration) error {
	if timeout > 0 {
		timer := time.AfterFunc(timeout, func() { e.timedOut.Store(e.kill()) })
		defer timer.Stop()
	}
	// A caller that can't be told has left, which the reading side sees and acts upon; so errors of sending stay here.
	_ = e.send(frame.Started, &agentpb.ExecStarted{Pid: uint32(e.command.Pid)})

	e.command.AfterExit(e.awaitRest)
	// There are hundreds of commands, so there are no more goroutines of each than wait for something.
	var work sync.WaitGroup
	var stderrCut bool
	work.Add(1)
	go func() { defer work.Done(); stderrCut = pump(e.command.Stderr, e.writer, frame.Stderr) }()
	if e.command.Stdin != nil {
		work.Add(1)
		go func() { defer work.Done(); e.stdin.drain(e.grant) }()
	}
	left := make(chan error, 1)
	go func() { left <- e.obey() }()
	stdoutCut := pump(e.command.Stdout, e.writer, frame.Stdout)
	<-e.command.Done()
	work.Wait()
	e.allIsSaid()
	select {
	case err := <-left:
		return err
	default:
		message := exited(e.command.Status(), e.timedOut.Load())
		message.OutputCut = stdoutCut || stderrCut
		message.CpuMilliseconds = uint64(e.command.CPUTime().Milliseconds())
		_ = e.send(frame.Exited, message)
		e.finish()
		<-left
		return nil
	}
}

// awaitRest has the output of a command that has ended be waited for so long and no longer.
func (e *execution) awaitRest() {
	e.stdin.abandon()
	e.mutex.Lock()
	defer e.mutex.Unlock()
	switch {
	case e.drained:
	case e.killed.Load(), e.command.Status().Signaled():
		e.endOutputIn(outputGraceKilled)
	case !e.waitOutput:
		e.late = e.server.output.begin(outputGrace, func() { e.endOutputIn(0) })
	}
}

func (e *execution) allIsSaid() {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.drained = true
	if e.late != nil {
		_ = e.server.output.end(e.late)
	}
}

// kill ends the command, and the waiting for output of one that has ended already. It says whether the command still ran.
func (e *execution) kill() bool {
	e.killed.Store(true)
	running := e.command.Condemn()
	if !running {
		e.endOutputIn(0)
	}
	return running
}

func (e *execution) endOutputIn(grace time.Duration) {
	deadline := time.Now().Add(grace)
	_ = e.command.Stdout.SetReadDeadline(deadline)
	_ = e.command.Stderr.SetReadDeadline(deadline)
}

// obey does what the caller says until it leaves or breaks the protocol; either is the end of the command.
func (e *execution) obey() error {
	for {
		kind, payload, err := frame.Read(e.reader, frame.MaxPayload)
		if err == nil {
			err = e.take(kind, payload)
		}
		if err != nil {
			e.kill()
			return err
		}
	}
}

func (e *execution) take(kind frame.Type, payload []byte) error {
	switch kind {
	case frame.Stdin:
		return e.stdin.push(payload)
	case frame.StdinEOF:
		e.stdin.close()
		return nil
	case frame.Signal:
		signal := &agentpb.ExecSignal{}
		if err := proto.Unmarshal(payload, signal); err != nil {
			return badRequest("SIGNAL: %v", err)
		}
		if signal.Signal < 1 || signal.Signal > 64 {
			return badRequest("signal %d: 1 to 64 is allowed", signal.Signal)
		}
		return e.signal(syscall.Signal(signal.Signal))
	}
	return badRequest("frame of type %d during an exec", kind)
}

// signal sends a signal to the command's group. Whoever would end a command that has ended already, and is waited for only
// since others hold its output, wants to wait no longer.
func (e *execution) signal(number syscall.Signal) error {
	if err := e.command.Signal(number); err != nil {
		return err
	}
	switch number {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGKILL:
		select {
		case <-e.command.Done():
			e.endOutputIn(0)
		default:
		}
	}
	return nil
}

func (e *execution) grant(bytes int) {
	_ = e.send(frame.Window, &agentpb.ExecWindow{Bytes: uint32(bytes)})
}

func exited(status syscall.WaitStatus, timedOut bool) *agentpb.ExecExited {
	if status.Signaled() {
		signal := uint32(status.Signal())
		return &agentpb.ExecExited{ExitCode: 128 + signal, Signal: signal, TimedOut: timedOut}
	}
	return &agentpb.ExecExited{ExitCode: uint32(status.ExitStatus()), TimedOut: timedOut}
}
