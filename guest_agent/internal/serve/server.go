// Package serve answers callers: a connection says who it is, asks for one operation, and is closed after it.
package serve

import (
	"bufio"
	"container/list"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/frame"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/session"
)

// ProtocolVersion is the one version of proto/ingle/agent/v1 that is spoken here.
const ProtocolVersion = 1

const (
	// DefaultHelloTimeout is how long a caller may take to say what it wants.
	DefaultHelloTimeout = 5 * time.Second

	// helloLimit is all that a caller who has not shown the token may make us allocate.
	helloLimit = 1024

	// readAhead is enough for HELLO, most requests and a small file's content at once. What is longer is read to where it
	// belongs.
	readAhead = 2048

	// lingerTimeout is how long we wait for a caller to take the last frame and close.
	lingerTimeout = 5 * time.Second

	// greetingDelay is the most by which a greeting may wait for the answer, to leave with it.
	greetingDelay = time.Second

	// acceptPause is how long new callers wait while the machine is out of descriptors or memory.
	acceptPause = 50 * time.Millisecond
)

// Server is everything that connections share.
type Server struct {
	Version string
	// Token is what callers must send, until an identity brings another; empty where the transport says who calls.
	Token        []byte
	HelloTimeout time.Duration
	// Env is given to every command, until an identity brings another.
	Env    map[string]string
	Reaper *reap.Reaper
	// Guest says that the machine is ours to change, and Pretend that an identity is taken although it is not.
	Guest, Pretend bool
	// RootDevice is that of a guest's root file system.
	RootDevice string
	// Sleeper has the guest rest.
	Sleeper Sleeper
	// Remember, unless nil, keeps an identity for an agent that comes after this one.
	Remember func(identity *agentpb.GuestIdentity) error
	// Refusal, unless nil, is the answer to everything: the guest is not what it was to be.
	Refusal *failure.Error
	// Shutdown ends everything. It is called after the caller got its answer.
	Shutdown func()

	// becoming is held while the guest becomes another one; pending, unless nil, is what everybody is told meanwhile, and
	// afterwards when that has failed.
	becoming sync.Mutex
	pending  atomic.Pointer[failure.Error]
	commands sync.RWMutex // of Env
	sleeping sync.Mutex   // while the guest is put to rest, or woken
	// stuck is a rest that did not come to an end in its time.
	stuck atomic.Bool
	rests atomic.Bool

	sessions   *session.Registry
	activity   activity
	callers    callers
	greeting   deadlines // with who has not said what it wants
	lingering  deadlines // with who has not closed
	unanswered deadlines // who has not even been greeted
	output     deadlines // with what others than an ended command may say
}

// Serve answers connections until the listener is closed, and returns when the last one is over.
func (s *Server) Serve(listener net.Listener) error {
	s.sessions = session.NewRegistry()
	if s.Sleeper.Rests() {
		s.rests.Store(true)
		s.Reaper.Hold()
	}
	var conversations sync.WaitGroup
	defer conversations.Wait()
	for {
		stream, err := listener.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
			time.Sleep(acceptPause)
			continue
		default:
			return err
		}
		conversations.Add(1)
		go func() {
			defer conversations.Done()
			s.converse(stream)
		}()
	}
}

// connection is one caller and its one operation.
type connection struct {
	server *Server
	caller *caller
	stream *watchedStream
	reader *bufio.Reader
	writer *frame.Writer
	// lingers, unless nil, is that our direction has ended.
	lingers *list.Element
}

// readers are empty ones, to be used again.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readAhead) }}

func (s *Server) converse(accepted net.Conn) {
	defer accepted.Close()
	caller := s.callers.came(accepted)
	defer s.callers.gone(caller)
	stream := &watchedStream{Conn: accepted, activity: &s.activity}
	c := &connection{
		server: s,
		caller: caller,
		stream: stream,
		reader: readers.Get().(*bufio.Reader),
		writer: frame.NewWriter(stream),
	}
	c.reader.Reset(stream)
	defer func() {
		c.reader.Reset(nil)
		readers.Put(c.reader)
	}()
	request, err := c.greet()
	if err == nil {
		err = s.refusal(request)
	}
	if err == nil {
		err = c.operate(request)
	}
	if err != nil {
		c.refuse(err)
	}
	c.linger()
}

// greet reads HELLO and REQUEST, which a caller sends together, against one deadline.
func (c *connection) greet() (*agentpb.Request, error) {
	deadline := c.server.greeting.begin(c.server.HelloTimeout, c.hearNoMore)
	request, err := c.introduction()
	if late := c.server.greeting.end(deadline); late != nil {
		if err := c.stream.SetReadDeadline(time.Time{}); err != nil {
			return nil, err
		}
		return nil, late
	}
	return request, err
}

// hearNoMore has all reads from the caller fail.
func (c *connection) hearNoMore() { _ = c.stream.SetReadDeadline(time.Now()) }

func (c *connection) introduction() (*agentpb.Request, error) {
	hello := &agentpb.Hello{}
	if err := c.expect(frame.Hello, helloLimit, hello); err != nil {
		return nil, err
	}
	if hello.ProtocolVersion != ProtocolVersion {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_VERSION,
			"protocol version %d: this agent (%s) speaks version %d", hello.ProtocolVersion, c.server.Version, ProtocolVersion)
	}
	if !c.server.callers.admit(c.caller, func() bool { return sameToken(hello.Token, c.server.Token) }) {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_TOKEN, "the token is not this agent's")
	}
	answer, err := proto.Marshal(&agentpb.HelloOk{ProtocolVersion: ProtocolVersion, AgentVersion: c.server.Version})
	if err != nil {
		return nil, err
	}
	c.writer.Queue(frame.HelloOk, answer)
	if c.reader.Buffered() == 0 {
		if err := c.writer.Flush(); err != nil {
			return nil, err
		}
	}
	request := &agentpb.Request{}
	return request, c.expect(frame.Request, frame.MaxPayload, request)
}

// sameToken takes the same time for any wrong token of a length: what is compared are digests, whose first different
// byte says nothing about that of the tokens, and all of them.
func sameToken(theirs, ours []byte) bool {
	their, our := sha256.Sum256(theirs), sha256.Sum256(ours)
	return subtle.ConstantTimeCompare(their[:], our[:]) == 1
}

// expect reads the next frame, which must be of that type, into a message.
func (c *connection) expect(kind frame.Type, limit int, message proto.Message) error {
	got, payload, err := frame.Read(c.reader, limit)
	if err != nil {
		return err
	}
	if got != kind {
		return badRequest("frame of type %d, expected %d", got, kind)
	}
	if err := proto.Unmarshal(payload, message); err != nil {
		return badRequest("frame of type %d: %v", got, err)
	}
	return nil
}

func (c *connection) send(kind frame.Type, message proto.Message) error {
	payload, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	return c.writer.Write(kind, payload)
}

// refuse sends ERROR for everything but a lost connection, which nobody would read it from.
func (c *connection) refuse(err error) {
	var known *failure.Error
	var tooLarge frame.TooLargeError
	var network net.Error
	switch {
	case errors.As(err, &known):
	case errors.As(err, &tooLarge), errors.Is(err, frame.ErrEmpty):
		known = badRequest("%v", err)
	case errors.As(err, &network) && network.Timeout():
		known = badRequest("no request within %s", c.server.HelloTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return
	default:
		known = failure.New(agentpb.ErrorCode_ERROR_CODE_INTERNAL, "%v", err)
	}
	_ = c.send(frame.Error, &agentpb.Error{Code: known.Code, Message: known.Message})
}

// finish ends our direction; the caller may take some time to see that and close.
func (c *connection) finish() {
	if c.lingers == nil {
		_ = c.stream.CloseWrite()
		c.lingers = c.server.lingering.begin(lingerTimeout, c.hearNoMore)
	}
}

// linger finishes and reads on until the caller has closed: closing with unread input would reset the connection, and
// the caller might lose the last frame.
func (c *connection) linger() {
	c.finish()
	_, _ = io.Copy(io.Discard, c.reader)
	_ = c.server.lingering.end(c.lingers)
}

func badRequest(format string, arguments ...any) *failure.Error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST, format, arguments...)
}
