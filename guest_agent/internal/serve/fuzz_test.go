package serve

import (
	"bytes"
	"crypto/rand"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/frame"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/session"
)

// patience is how long leftovers may take to go: a command that ignores SIGTERM has a second.
const patience = 20 * time.Second

// hesitation is how long a caller that has said everything waits before it hangs up.
const hesitation = 2 * time.Millisecond

// processReaper waits for every child of the process. So it begins with the first conversation, in a worker of the
// fuzzer, and never in the process that waits for the workers.
var processReaper = sync.OnceValue(reap.New)

// FuzzGreeting: who hasn't got the token is told so, whatever they say, and nothing else.
func FuzzGreeting(f *testing.F) {
	for _, hello := range []*agentpb.Hello{
		{ProtocolVersion: ProtocolVersion}, {ProtocolVersion: 2}, {ProtocolVersion: ProtocolVersion, Token: make([]byte, 32)},
	} {
		ping := &agentpb.Request{Operation: &agentpb.Request_Ping{Ping: &agentpb.PingRequest{}}}
		f.Add(append(framed(f, frame.Hello, marshal(f, hello)), framed(f, frame.Request, marshal(f, ping))...))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	token := make([]byte, 32)
	_, _ = rand.Read(token) // never fails, says its documentation
	f.Fuzz(func(t *testing.T, said []byte) {
		server := &Server{Version: "fuzzed", Token: token, HelloTimeout: time.Minute}
		for _, answer := range converse(t, server, said) {
			if answer != frame.Error {
				t.Fatalf("frame of type %d for a stranger", answer)
			}
		}
	})
}

// FuzzConversation: whatever is asked for, and whatever follows that, is answered with whole frames and at most one
// ERROR at the end, and leaves neither a process nor a goroutine behind. What is asked for is made harmless first.
func FuzzConversation(f *testing.F) {
	for _, request := range harmless("") {
		for _, rest := range [][]byte{
			nil,
			append(framed(f, frame.Stdin, []byte("input")), framed(f, frame.StdinEOF, nil)...),
			framed(f, frame.Signal, marshal(f, &agentpb.ExecSignal{Signal: 9})),
			framed(f, frame.Resize, marshal(f, &agentpb.TerminalSize{Rows: 1, Columns: 65535})),
			append(framed(f, frame.Data, []byte("content")), framed(f, frame.DataEnd, nil)...),
			framed(f, frame.Detached, nil),
			{0, 0, 0, 0},
		} {
			f.Add(marshal(f, request), rest)
		}
	}
	f.Fuzz(func(t *testing.T, asked, rest []byte) {
		if len(asked) > frame.MaxPayload {
			t.Skip("no frame")
		}
		root := t.TempDir()
		defer makeRemovable(root)
		request := &agentpb.Request{}
		if proto.Unmarshal(asked, request) == nil {
			asked = marshal(t, tamed(request, root))
		}
		hello := marshal(t, &agentpb.Hello{ProtocolVersion: ProtocolVersion})
		said := append(framed(t, frame.Hello, hello), framed(t, frame.Request, asked)...)
		server := &Server{
			Version: "fuzzed", HelloTimeout: time.Minute, Reaper: processReaper(), Shutdown: func() {},
			Pretend: true, Sleeper: insomniac{}, sessions: session.NewRegistry(),
		}
		echo(t, filepath.Join(root, "echo"))
		before := runtime.NumGoroutine()
		answers := converse(t, server, append(said, rest...))
		if len(answers) == 0 || answers[0] != frame.HelloOk {
			t.Errorf("no greeting in %v", answers)
		}
		for index, answer := range answers {
			if answer == frame.Error && index != len(answers)-1 {
				t.Errorf("an ERROR amid %v", answers)
			}
		}
		for _, left := range server.sessions.List() {
			if found, err := server.sessions.Find(left.ID); err == nil {
				found.Kill()
			}
		}
		if !server.Reaper.WaitNone(patience) {
			t.Fatal("a process is left behind")
		}
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("a goroutine is left behind:\n%s", stacks())
			}
		}
	})
}

// insomniac has nothing stand still.
type insomniac struct{}

func (insomniac) Rests() bool { return false }

func (insomniac) Rest(map[string]string) (*agentpb.HookResult, error) {
	return &agentpb.HookResult{ExitCode: 1}, nil
}

func (insomniac) Thaw(string, map[string]string) (*agentpb.HookResult, error) { return nil, nil }

// echo is a server that says what it is told.
func echo(t *testing.T, path string) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			stream, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer stream.Close()
				_, _ = io.Copy(stream, stream)
			}()
		}
	}()
}

// harmless has a request of every kind that a fuzzer may make, about files in root.
func harmless(root string) []*agentpb.Request {
	path := filepath.Join(root, "file")
	program := &agentpb.SessionProgram{Argv: []string{"cat"}}
	return []*agentpb.Request{
		{Operation: &agentpb.Request_Exec{Exec: &agentpb.ExecRequest{Argv: []string{"cat"}, Stdin: true}}},
		{Operation: &agentpb.Request_Exec{Exec: &agentpb.ExecRequest{
			Argv: []string{"true"}, Env: map[string]string{"A": "b"}, User: "nobody", WorkingDirectory: "/", TimeoutMilliseconds: 1,
		}}},
		{Operation: &agentpb.Request_Ping{Ping: &agentpb.PingRequest{}}},
		{Operation: &agentpb.Request_Stats{Stats: &agentpb.StatsRequest{}}},
		{Operation: &agentpb.Request_Shutdown{Shutdown: &agentpb.ShutdownRequest{}}},
		{Operation: &agentpb.Request_CreateSession{CreateSession: &agentpb.CreateSessionRequest{Program: program}}},
		{Operation: &agentpb.Request_AttachSession{AttachSession: &agentpb.AttachSessionRequest{Id: "init", Create: program}}},
		{Operation: &agentpb.Request_ListSessions{ListSessions: &agentpb.ListSessionsRequest{}}},
		{Operation: &agentpb.Request_ResizeSession{ResizeSession: &agentpb.ResizeSessionRequest{}}},
		{Operation: &agentpb.Request_KillSession{KillSession: &agentpb.KillSessionRequest{}}},
		{Operation: &agentpb.Request_ReadFile{ReadFile: &agentpb.ReadFileRequest{Path: path}}},
		{Operation: &agentpb.Request_WriteFile{WriteFile: &agentpb.WriteFileRequest{Path: path}}},
		{Operation: &agentpb.Request_StatFile{StatFile: &agentpb.StatFileRequest{Path: path}}},
		{Operation: &agentpb.Request_ListDirectory{ListDirectory: &agentpb.ListDirectoryRequest{Path: root}}},
		{Operation: &agentpb.Request_MakeDirectory{MakeDirectory: &agentpb.MakeDirectoryRequest{Path: path}}},
		{Operation: &agentpb.Request_Remove{Remove: &agentpb.RemoveRequest{Path: path, Recursive: true}}},
		{Operation: &agentpb.Request_Rename{Rename: &agentpb.RenameRequest{Path: path, NewPath: path}}},
		{Operation: &agentpb.Request_CopyOut{CopyOut: &agentpb.CopyOutRequest{Path: root}}},
		{Operation: &agentpb.Request_ListPorts{ListPorts: &agentpb.ListPortsRequest{}}},
		{Operation: &agentpb.Request_Activity{Activity: &agentpb.ActivityRequest{}}},
		{Operation: &agentpb.Request_Forward{Forward: &agentpb.ForwardRequest{
			Target: &agentpb.ForwardRequest_UnixPath{UnixPath: filepath.Join(root, "echo")},
		}}},
		{Operation: &agentpb.Request_TakeIdentity{TakeIdentity: &agentpb.GuestIdentity{
			Token: bytes.Repeat([]byte{7}, 32), Hostname: "hearth", MachineId: "0123456789abcdef0123456789abcdef",
			Networks:    []*agentpb.Network{{Interface: "eth0", Address: "10.0.2.15/24", Gateway: "10.0.2.2", Mac: "52:54:00:12:34:56"}},
			Environment: &agentpb.Environment{Variables: map[string]string{"A": "b"}},
			SshKeys:     []*agentpb.AuthorizedKeys{{Keys: []string{"ssh-ed25519 AAAA"}}},
		}}},
		{Operation: &agentpb.Request_Rest{Rest: &agentpb.RestRequest{}}},
		{Operation: &agentpb.Request_Thaw{Thaw: &agentpb.ThawRequest{Forked: true}}},
	}
}

// tamed makes a request harmless to the machine that the fuzzer runs on: of programs, cat and true; of files and servers,
// those in root; and what is not known to be harmless is a ping. Archives have a fuzzer of their own.
func tamed(request *agentpb.Request, root string) *agentpb.Request {
	switch asked := request.Operation.(type) {
	case *agentpb.Request_Exec:
		asked.Exec.Argv = program(asked.Exec.Argv)
	case *agentpb.Request_CreateSession:
		tameProgram(asked.CreateSession.Program)
	case *agentpb.Request_AttachSession:
		tameProgram(asked.AttachSession.Create)
	case *agentpb.Request_Ping, *agentpb.Request_Stats, *agentpb.Request_Shutdown, *agentpb.Request_ListSessions,
		*agentpb.Request_ResizeSession, *agentpb.Request_KillSession, *agentpb.Request_ListPorts, *agentpb.Request_Activity,
		*agentpb.Request_TakeIdentity, *agentpb.Request_Rest, *agentpb.Request_Thaw, nil:
	case *agentpb.Request_Forward:
		asked.Forward.Target = &agentpb.ForwardRequest_UnixPath{UnixPath: filepath.Join(root, "echo")}
	case *agentpb.Request_ReadFile:
		asked.ReadFile.Path = within(root, asked.ReadFile.Path)
	case *agentpb.Request_WriteFile:
		asked.WriteFile.Path = within(root, asked.WriteFile.Path)
	case *agentpb.Request_StatFile:
		asked.StatFile.Path = within(root, asked.StatFile.Path)
	case *agentpb.Request_ListDirectory:
		asked.ListDirectory.Path = within(root, asked.ListDirectory.Path)
	case *agentpb.Request_MakeDirectory:
		asked.MakeDirectory.Path = within(root, asked.MakeDirectory.Path)
	case *agentpb.Request_Remove:
		asked.Remove.Path = within(root, asked.Remove.Path)
	case *agentpb.Request_Rename:
		asked.Rename.Path, asked.Rename.NewPath = within(root, asked.Rename.Path), within(root, asked.Rename.NewPath)
	case *agentpb.Request_CopyOut:
		asked.CopyOut.Path = within(root, asked.CopyOut.Path)
	default:
		return &agentpb.Request{Operation: &agentpb.Request_Ping{Ping: &agentpb.PingRequest{}}}
	}
	return request
}

// program keeps an argv only in so far as it can do no harm.
func program(argv []string) []string {
	if len(argv) == 0 || argv[0] == "true" || argv[0] == "" {
		return argv
	}
	return []string{"cat"}
}

func tameProgram(wanted *agentpb.SessionProgram) {
	if wanted != nil {
		wanted.Argv = program(wanted.Argv)
	}
}

// within is a name in root, or root itself.
func within(root, path string) string {
	name := filepath.Base(path)
	if name == "." || name == ".." || name == "/" {
		return root
	}
	return root + "/" + name
}

// converse says it all, hangs up, and answers the types of the frames that came back.
func converse(t *testing.T, server *Server, said []byte) []frame.Type {
	t.Helper()
	ours, theirs := socketPair(t)
	var conversation sync.WaitGroup
	conversation.Add(2)
	go func() { defer conversation.Done(); server.converse(theirs) }()
	answered := make(chan struct{})
	go func() {
		defer conversation.Done()
		_, _ = ours.Write(said) // the other side may leave before it has it all
		select {
		case <-answered:
		case <-time.After(hesitation):
		}
		_ = ours.CloseWrite()
	}()
	stuck := time.AfterFunc(patience, func() { panic("the conversation never ends:\n" + stacks()) })
	all, err := io.ReadAll(ours)
	close(answered)
	if err != nil {
		t.Errorf("the answer: %v", err)
	}
	conversation.Wait()
	stuck.Stop()
	ours.Close()
	var kinds []frame.Type
	for stream := bytes.NewReader(all); ; {
		kind, _, err := frame.Read(stream, frame.MaxPayload)
		if err == io.EOF {
			return kinds
		}
		if err != nil {
			t.Fatalf("the answer: %v", err)
		}
		kinds = append(kinds, kind)
	}
}

// stacks is what every goroutine does.
func stacks() string {
	text := make([]byte, 1<<20)
	return string(text[:runtime.Stack(text, true)])
}

func socketPair(t *testing.T) (*net.UnixConn, net.Conn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for index, descriptor := range pair {
		file := os.NewFile(uintptr(descriptor), "socket")
		ends[index], err = net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return ends[0].(*net.UnixConn), ends[1]
}

func marshal(t testing.TB, message proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func framed(t testing.TB, kind frame.Type, payload []byte) []byte {
	t.Helper()
	var stream bytes.Buffer
	if err := frame.NewWriter(&stream).Write(kind, payload); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

// makeRemovable opens directories whose mode keeps their owner out.
func makeRemovable(root string) {
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, _ error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}
