package serve

import (
	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/ports"
	"ingle.dev/guest_agent/internal/users"
)

// operateOnNetwork does what was asked, if it is about servers in the guest.
func (c *connection) operateOnNetwork(request *agentpb.Request) (found bool, err error) {
	switch asked := request.Operation.(type) {
	case *agentpb.Request_Forward:
		return true, c.during(&c.server.activity.forwards, func() error { return c.forward(asked.Forward) })
	case *agentpb.Request_ListPorts:
		return true, c.listPorts()
	}
	return false, nil
}

func (c *connection) listPorts() error {
	sockets, truncated, err := ports.List()
	if err != nil {
		return err
	}
	response := &agentpb.ListPortsResponse{Truncated: truncated}
	names := map[uint32]string{}
	for _, socket := range sockets {
		protocol := agentpb.PortProtocol_PORT_PROTOCOL_TCP
		if socket.UDP {
			protocol = agentpb.PortProtocol_PORT_PROTOCOL_UDP
		}
		if _, known := names[socket.UID]; !known {
			names[socket.UID] = users.System.NameOf(socket.UID)
		}
		response.Ports = append(response.Ports, &agentpb.ListeningPort{
			Protocol: protocol,
			Address:  socket.Address.String(),
			Port:     uint32(socket.Port),
			Pid:      uint32(socket.PID),
			Process:  socket.Process,
			Command:  socket.Command,
			Uid:      socket.UID,
			User:     names[socket.UID],
		})
	}
	return c.respond(&agentpb.Response{Result: &agentpb.Response_ListPorts{ListPorts: response}})
}
