package serve

import (
	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/configure"
	"ingle.dev/guest_agent/internal/failure"
)

func (c *connection) configure(request *agentpb.ConfigureRequest) error {
	plan, err := configure.Check(request)
	if err != nil {
		return err
	}
	if !c.server.Guest {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_NOT_A_GUEST,
			"this agent is an ordinary process: it does not change the machine that it runs on")
	}
	done, err := plan.Apply()
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Configure{Configure: done}})
}
