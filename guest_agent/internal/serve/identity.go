package serve

import (
	"bytes"
	"net"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/identity"
)

func (c *connection) takeIdentity(wanted *agentpb.GuestIdentity) error {
	s := c.server
	plan, err := identity.Check(wanted, s.RootDevice)
	if err != nil {
		return err
	}
	if !s.Guest && !s.Pretend {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_NOT_A_GUEST,
			"this agent is an ordinary process: it does not change the machine that it runs on")
	}
	take := s.takePart
	if len(wanted.GetToken()) > 0 {
		take = func(plan *identity.Plan, wanted *agentpb.GuestIdentity) (*agentpb.IdentityTaken, error) {
			return c.takeWhole(plan, wanted)
		}
	}
	taken, err := take(plan, wanted)
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_TakeIdentity{TakeIdentity: taken}})
}

// takeWhole has the guest be another one to all callers, who are told nothing by what is neither.
func (c *connection) takeWhole(plan *identity.Plan, wanted *agentpb.GuestIdentity) (*agentpb.IdentityTaken, error) {
	s := c.server
	s.becoming.Lock()
	defer s.becoming.Unlock()
	if !s.callers.endOthers(c.caller, func() { s.pending.Store(pending("the guest is taking another identity")) }) {
		return nil, net.ErrClosed // another one has come first, with a token of its own
	}
	taken, err := s.takePart(plan, wanted)
	if err != nil {
		why := pending("the guest could not take its identity: %v", err)
		s.pending.Store(why)
		return nil, why
	}
	s.callers.change(func() { s.Token = bytes.Clone(wanted.GetToken()) })
	s.pending.Store(nil)
	return taken, nil
}

// takePart changes the machine, and what commands are given.
func (s *Server) takePart(plan *identity.Plan, wanted *agentpb.GuestIdentity) (*agentpb.IdentityTaken, error) {
	taken := &agentpb.IdentityTaken{}
	if s.Guest {
		var err error
		if taken, err = plan.Apply(); err != nil {
			return nil, err
		}
	}
	if s.Remember != nil {
		if err := s.Remember(wanted); err != nil {
			return nil, err
		}
	}
	if wanted.Environment != nil {
		s.commands.Lock()
		defer s.commands.Unlock()
		s.Env = wanted.Environment.Variables
	}
	return taken, nil
}

func pending(format string, arguments ...any) *failure.Error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_IDENTITY_PENDING, format, arguments...)
}
