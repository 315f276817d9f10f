package serve

import (
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/frame"
	"ingle.dev/guest_agent/internal/session"
)

var defaultSize = command.Size{Rows: 24, Columns: 80}

// viewBuffer holds all the scrollback, so that it is one frame.
const viewBuffer = 64 * 1024

// listedArgv is how many bytes of a command a list shows.
const listedArgv = 1024

func (c *connection) createSession(request *agentpb.CreateSessionRequest) error {
	size, limits, start, err := c.programOf(request.Program)
	if err != nil {
		return err
	}
	created, err := c.server.sessions.Create(request.Id, size, limits, start)
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_CreateSession{
		CreateSession: &agentpb.CreateSessionResponse{Session: describe(created.Info())},
	}})
}

func (c *connection) listSessions() error {
	response := &agentpb.ListSessionsResponse{}
	for _, info := range c.server.sessions.List() {
		response.Sessions = append(response.Sessions, describe(info))
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_ListSessions{ListSessions: response}})
}

func (c *connection) resizeSession(request *agentpb.ResizeSessionRequest) error {
	size, err := sizeOf(request.Size)
	if err != nil {
		return err
	}
	found, err := c.server.sessions.Find(request.Id)
	if err != nil {
		return err
	}
	if err := found.Resize(size); err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_ResizeSession{
		ResizeSession: &agentpb.ResizeSessionResponse{},
	}})
}

func (c *connection) killSession(request *agentpb.KillSessionRequest) error {
	found, err := c.server.sessions.Find(request.Id)
	if err != nil {
		return err
	}
	found.Kill()
	return c.respond(&agentpb.Response{Result: &agentpb.Response_KillSession{KillSession: &agentpb.KillSessionResponse{}}})
}

func (c *connection) attachSession(request *agentpb.AttachSessionRequest) error {
	var size command.Size
	if request.Size != nil {
		var err error
		if size, err = sizeOf(request.Size); err != nil {
			return err
		}
	}
	viewer, err := c.viewerOf(request)
	if err != nil {
		return err
	}
	defer viewer.Leave()
	if request.Size != nil {
		if err := viewer.Resize(size); err != nil {
			return err
		}
	}
	a := &attachment{connection: c, viewer: viewer, input: newStdinQueue(viewer.Input)}
	return a.run()
}

func (c *connection) viewerOf(request *agentpb.AttachSessionRequest) (*session.Viewer, error) {
	if request.Create == nil {
		found, err := c.server.sessions.Find(request.Id)
		if err != nil {
			return nil, err
		}
		return found.Attach(request.Steal)
	}
	size, limits, start, err := c.programOf(request.Create)
	if err != nil {
		return nil, err
	}
	return c.server.sessions.Attach(request.Id, request.Steal, size, limits, start)
}

// attachment is a caller and the session it looks at.
type attachment struct {
	*connection
	viewer *session.Viewer
	input  *stdinQueue
}

func (a *attachment) run() error {
	// A caller that can't be told has left, which the reading side sees and acts upon; so errors of sending stay here.
	_ = a.send(frame.Attached, describe(a.viewer.Session().Info()))
	drained := make(chan struct{})
	go func() { defer close(drained); a.input.drain(a.grant) }()
	left := make(chan error, 1)
	go func() { left <- a.obey() }()
	go func() {
		<-a.viewer.Done()
		// Whoever was replaced, or has left, may be stuck: it must not keep us waiting.
		_ = a.stream.SetWriteDeadline(time.Now().Add(lingerTimeout))
	}()

	ending := a.show()
	a.input.abandon()
	switch ending {
	case session.Over:
		_ = a.send(frame.Exited, exited(a.viewer.Session().Status(), false))
	case session.Stolen:
		_ = a.send(frame.Detached, &agentpb.SessionDetached{})
	default:
		<-drained
		return <-left
	}
	a.finish()
	<-drained
	<-left
	return nil
}

// show sends what the session says, until the viewer's last event.
func (a *attachment) show() session.Event {
	buffer := make([]byte, frame.HeaderSize+viewBuffer)
	for {
		event, size := a.viewer.Next(buffer[frame.HeaderSize:])
		var err error
		switch event {
		case session.Replay:
			err = a.writer.WriteInPlace(frame.Scrollback, buffer[:frame.HeaderSize+size])
		case session.Output:
			err = a.writer.WriteInPlace(frame.Stdout, buffer[:frame.HeaderSize+size])
		default:
			return event
		}
		if err != nil {
			a.viewer.Leave()
		}
	}
}

// obey does what the caller says until it leaves or breaks the protocol.
func (a *attachment) obey() error {
	defer a.viewer.Leave()
	for {
		kind, payload, err := frame.Read(a.reader, frame.MaxPayload)
		if err == nil {
			err = a.take(kind, payload)
		}
		if err != nil {
			return err
		}
	}
}

func (a *attachment) take(kind frame.Type, payload []byte) error {
	switch kind {
	case frame.Stdin:
		a.viewer.Typed()
		return a.input.push(payload)
	case frame.Resize:
		wanted := &agentpb.TerminalSize{}
		if err := proto.Unmarshal(payload, wanted); err != nil {
			return badRequest("RESIZE: %v", err)
		}
		size, err := sizeOf(wanted)
		if err != nil {
			return err
		}
		return a.viewer.Resize(size)
	}
	return badRequest("frame of type %d during an attachment", kind)
}

func (a *attachment) grant(bytes int) {
	_ = a.send(frame.Window, &agentpb.ExecWindow{Bytes: uint32(bytes)})
}

// programOf checks what shall run, and answers how to start it.
func (c *connection) programOf(program *agentpb.SessionProgram) (command.Size, session.Limits, session.Start, error) {
	size := defaultSize
	if program.GetSize() != nil {
		var err error
		if size, err = sizeOf(program.Size); err != nil {
			return size, session.Limits{}, nil, err
		}
	}
	limits := session.Limits{
		IdleTimeout:   time.Duration(min(program.GetIdleTimeoutMilliseconds(), longestTimeout)) * time.Millisecond,
		EndWithViewer: program.GetEndWithViewer(),
	}
	var umask *uint32
	if program != nil {
		umask = program.Umask
	}
	start := func() (*command.Terminal, error) {
		return command.StartTerminal(c.server.Reaper, command.Spec{
			Argv:      program.GetArgv(),
			Env:       c.server.environment(program.GetEnv()),
			Directory: program.GetWorkingDirectory(),
			User:      program.GetUser(),
			Umask:     umask,
			Limits:    program.GetLimits(),
		}, size)
	}
	return size, limits, start, nil
}

func sizeOf(size *agentpb.TerminalSize) (command.Size, error) {
	rows, columns := size.GetRows(), size.GetColumns()
	if rows < 1 || rows > math.MaxUint16 || columns < 1 || columns > math.MaxUint16 {
		return command.Size{}, badRequest("a terminal of %d rows and %d columns: 1 to %d are allowed", rows, columns, math.MaxUint16)
	}
	return command.Size{Rows: uint16(rows), Columns: uint16(columns)}, nil
}

func describe(info session.Info) *agentpb.Session {
	return &agentpb.Session{
		Id:               info.ID,
		Argv:             beginning(info.Argv),
		Size:             &agentpb.TerminalSize{Rows: uint32(info.Size.Rows), Columns: uint32(info.Size.Columns)},
		Attached:         info.Attached,
		IdleMilliseconds: uint64(info.Idle.Milliseconds()),
		AgeMilliseconds:  uint64(info.Age.Milliseconds()),
	}
}

// beginning is so much of a command as a list shows; what is cut ends in "…".
func beginning(argv []string) []string {
	shown, room := make([]string, 0, len(argv)), listedArgv
	for _, argument := range argv {
		if len(argument) >= room {
			return append(shown, strings.ToValidUTF8(argument[:room], "")+"…")
		}
		shown = append(shown, argument)
		room -= len(argument) + 1
	}
	return shown
}
