package serve

import (
	"sync/atomic"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
)

// Sleeper has everything in the guest but the agent stand still, and go on.
type Sleeper interface {
	// Rests tells whether that is so from the beginning.
	Rests() bool
	// Rest has it stand still; an error leaves it as it was. What a hook is given are these variables.
	Rest(environment map[string]string) (*agentpb.HookResult, error)
	// Thaw has it go on, after the hook of that name; empty: none.
	Thaw(hook string, environment map[string]string) (*agentpb.HookResult, error)
}

func (c *connection) rest() error {
	hook, err := c.server.rest()
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Rest{Rest: &agentpb.RestResponse{Hook: hook}}})
}

func (c *connection) thaw(request *agentpb.ThawRequest) error {
	name := "resume"
	if request.Forked {
		name = "fork"
	}
	hook, err := c.server.thaw(name)
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Thaw{Thaw: &agentpb.ThawResponse{Hook: hook}}})
}

// restPatience is how long all of a rest may take. Its parts are bounded each, but for a file system of the guest's own
// that does not answer who looks for a hook there.
var restPatience = 60 * time.Second

func (s *Server) rest() (*agentpb.HookResult, error) {
	if s.stuck.Load() {
		return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_RESTLESS, "it waits for a file system that does not answer")
	}
	type ending struct {
		hook *agentpb.HookResult
		err  error
	}
	var decided atomic.Bool
	ended := make(chan ending, 1)
	go func() {
		s.sleeping.Lock()
		defer s.sleeping.Unlock()
		defer s.stuck.Store(false)
		if s.rests.Load() {
			ended <- ending{}
			return
		}
		hook, err := s.Sleeper.Rest(s.environment(nil))
		if decided.CompareAndSwap(false, true) {
			s.rests.Store(err == nil)
		} else if err == nil { // nobody expects that any more
			_, _ = s.Sleeper.Thaw("", nil)
		}
		ended <- ending{hook, err}
	}()
	select {
	case end := <-ended:
		return end.hook, end.err
	case <-time.After(restPatience):
	}
	s.stuck.Store(true)
	if !decided.CompareAndSwap(false, true) {
		s.stuck.Store(false)
		end := <-ended
		return end.hook, end.err
	}
	return nil, failure.New(agentpb.ErrorCode_ERROR_CODE_RESTLESS, "it did not stand still within %s", restPatience)
}

func (s *Server) thaw(name string) (*agentpb.HookResult, error) {
	if s.stuck.Load() { // it goes on already, and what is stuck will leave it so
		return nil, nil
	}
	s.sleeping.Lock()
	defer s.sleeping.Unlock()
	if !s.rests.Load() {
		return nil, nil
	}
	hook, err := s.Sleeper.Thaw(name, s.environment(nil))
	if err == nil {
		s.rests.Store(false)
	}
	return hook, err
}

// refusal is why something can't be asked for at the moment; nil: it can.
func (s *Server) refusal(request *agentpb.Request) error {
	if s.Refusal != nil {
		return s.Refusal
	}
	if pending := s.pending.Load(); pending != nil {
		switch asked := request.Operation.(type) {
		case *agentpb.Request_Shutdown:
		case *agentpb.Request_TakeIdentity:
			if len(asked.TakeIdentity.GetToken()) == 0 {
				return pending
			}
		default:
			return pending
		}
	}
	if s.rests.Load() {
		switch request.Operation.(type) {
		case *agentpb.Request_Ping, *agentpb.Request_Stats, *agentpb.Request_Activity, *agentpb.Request_Sync,
			*agentpb.Request_TakeIdentity, *agentpb.Request_Rest, *agentpb.Request_Thaw, *agentpb.Request_Shutdown:
		default:
			return failure.New(agentpb.ErrorCode_ERROR_CODE_RESTING, "the guest rests: it stands still until it is woken")
		}
	}
	return nil
}
