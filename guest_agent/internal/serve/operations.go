package serve

import (
	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/frame"
	"ingle.dev/guest_agent/internal/machine"
)

// operate does what was asked. An error is one that the caller hasn't been told yet.
func (c *connection) operate(request *agentpb.Request) error {
	switch operation := request.Operation.(type) {
	case *agentpb.Request_Exec:
		if operation.Exec.GetUnnoticed() {
			return c.exec(operation.Exec)
		}
		return c.during(&c.server.activity.execs, func() error { return c.exec(operation.Exec) })
	case *agentpb.Request_Ping:
		return c.ping()
	case *agentpb.Request_Stats:
		return c.stats()
	case *agentpb.Request_Activity:
		return c.reportActivity()
	case *agentpb.Request_Sync:
		unix.Sync()
		return c.respond(&agentpb.Response{Result: &agentpb.Response_Sync{Sync: &agentpb.SyncResponse{}}})
	case *agentpb.Request_Shutdown:
		return c.shutdown()
	case *agentpb.Request_TakeIdentity:
		return c.takeIdentity(operation.TakeIdentity)
	case *agentpb.Request_Rest:
		return c.rest()
	case *agentpb.Request_Thaw:
		return c.thaw(operation.Thaw)
	case *agentpb.Request_CreateSession:
		return c.createSession(operation.CreateSession)
	case *agentpb.Request_AttachSession:
		return c.lively(func() error { return c.attachSession(operation.AttachSession) })
	case *agentpb.Request_ListSessions:
		return c.listSessions()
	case *agentpb.Request_ResizeSession:
		return c.resizeSession(operation.ResizeSession)
	case *agentpb.Request_KillSession:
		return c.killSession(operation.KillSession)
	}
	if found, err := c.operateOnNetwork(request); found {
		return err
	}
	if found, err := c.operateOnFiles(request); found {
		return err
	}
	return badRequest("this agent (%s) doesn't know the operation", c.server.Version)
}

func (c *connection) respond(response *agentpb.Response) error {
	return c.send(frame.Response, response)
}

func (c *connection) ping() error {
	bootID, err := machine.BootID()
	if err != nil {
		return err
	}
	uptime, err := machine.Uptime()
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Ping{Ping: &agentpb.PingResponse{
		BootId:             bootID,
		UptimeMilliseconds: uint64(uptime.Milliseconds()),
	}}})
}

func (c *connection) stats() error {
	stats, err := machine.Stats()
	if err != nil {
		return err
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_Stats{Stats: stats}})
}

func (c *connection) shutdown() error {
	err := c.respond(&agentpb.Response{Result: &agentpb.Response_Shutdown{Shutdown: &agentpb.ShutdownResponse{}}})
	c.linger()               // the answer has arrived when the caller closes
	_, _ = c.server.thaw("") // what is frozen would not hear that it is to end
	c.server.Shutdown()
	return err
}
