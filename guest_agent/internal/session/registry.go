package session

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"slices"
	"sync"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/failure"
)

// limit bounds the sessions, so that a list of all of them fits in a frame.
const limit = 256

var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Start starts the program of a session.
type Start func() (*command.Terminal, error)

// Registry has all sessions that are not over, by id.
type Registry struct {
	mutex    sync.Mutex
	sessions map[string]*Session
	ended    time.Time // the latest one
}

// Activity is what can be told of all sessions together.
type Activity struct {
	Count    int
	Attached int
	Latest   time.Time // of input, output, attaching, leaving or ending; zero when there was none yet
}

// NewRegistry makes an empty one.
func NewRegistry() *Registry {
	return &Registry{sessions: make(map[string]*Session)}
}

// Create starts a session. An empty id is made up; one that is taken is refused.
func (r *Registry) Create(id string, size command.Size, limits Limits, start Start) (*Session, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if _, taken := r.sessions[id]; taken {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_SESSION_EXISTS, "there is a session %q already", id)
	}
	return r.create(id, size, limits, start)
}

// Attach attaches to the session of that id, or to a new one when there is none.
func (r *Registry) Attach(id string, steal bool, size command.Size, limits Limits, start Start) (*Viewer, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	session := r.sessions[id]
	if session == nil {
		var err error
		if session, err = r.create(id, size, limits, start); err != nil {
			return nil, err
		}
	}
	return session.Attach(steal)
}

// Find gives the session of that id.
func (r *Registry) Find(id string) (*Session, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if session := r.sessions[id]; session != nil {
		return session, nil
	}
	return nil, notFound(id)
}

// List describes all sessions, oldest first.
func (r *Registry) List() []Info {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	list := make([]Info, 0, len(r.sessions))
	for _, session := range r.sessions {
		list = append(list, session.Info())
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(b.Age, a.Age) })
	return list
}

// Activity tells of all sessions, and waits for no viewer.
func (r *Registry) Activity() Activity {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	activity := Activity{Count: len(r.sessions), Latest: r.ended}
	for _, session := range r.sessions {
		info := session.Info()
		if info.Attached {
			activity.Attached++
		}
		if latest := time.Now().Add(-info.Idle); latest.After(activity.Latest) {
			activity.Latest = latest
		}
	}
	return activity
}

func (r *Registry) create(id string, size command.Size, limits Limits, program Start) (*Session, error) {
	if id == "" {
		id = r.unusedID()
	}
	if !validID.MatchString(id) {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST,
			"session id %q: 1 to 64 letters, digits, '.', '_' and '-' are allowed", id)
	}
	if len(r.sessions) >= limit {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST, "there are %d sessions: end one first", limit)
	}
	terminal, err := program()
	if err != nil {
		return nil, err
	}
	// Its end can't come before it is in the map: that needs the lock.
	session := start(id, terminal, size, limits, func() { r.remove(id) })
	r.sessions[id] = session
	return session, nil
}

func (r *Registry) remove(id string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.sessions, id)
	r.ended = time.Now()
}

func (r *Registry) unusedID() string {
	for {
		var random [4]byte
		_, _ = rand.Read(random[:]) // never fails, says its documentation
		if id := "s-" + hex.EncodeToString(random[:]); r.sessions[id] == nil {
			return id
		}
	}
}

func notFound(id string) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_SESSION_NOT_FOUND, "there is no session %q", id)
}
