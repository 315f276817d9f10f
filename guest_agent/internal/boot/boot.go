// Package boot is what the agent does as PID 1 of a guest, from the first instruction of user space until it serves.
package boot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/entropy"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/identity"
	"ingle.dev/guest_agent/internal/machine"
	"ingle.dev/guest_agent/internal/network"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/serve"
	"ingle.dev/guest_agent/internal/vsock"
)

// Where the initramfs has what we need.
const (
	configFile      = "/ingle/boot.binpb"
	moduleDirectory = "/ingle/modules"
	newRoot         = "/ingle.root"
)

// tokenSize is what keeps everybody else from a TCP port: 256 bits.
const tokenSize = 32

// readyLine tells the host that calling is worth a try.
const readyLine = "ingle-agent ready\n"

// Run boots the guest and serves; it doesn't return. Whatever goes wrong is one line on the console, and the end of the
// machine.
func Run(version string) {
	err := run(version)
	fmt.Fprintf(os.Stderr, "\ningle-agent: %v\n", err)
	unix.Sync()
	machine.Halt()
}

func run(version string) error {
	unix.Umask(0o022)
	if err := mountAll(earlyMounts); err != nil {
		return err
	}
	if err := linkDevices(); err != nil {
		return err
	}
	config, err := readConfig()
	if err != nil {
		return err
	}
	if err := entropy.Credit(config.Entropy); err != nil {
		return err
	}
	if err := loadModules(moduleDirectory); err != nil {
		return err
	}
	listener, err := connect(config)
	if err != nil {
		return err
	}
	// From here on a caller waits in the listener's queue while the rest is done.
	if config.ReadyDevice != "" {
		if err := tellReady(config.ReadyDevice); err != nil {
			return err
		}
	}
	if config.RootDevice != "" {
		if err := mountRoot(config.RootDevice, newRoot); err != nil {
			return err
		}
		if err := switchRoot(newRoot); err != nil {
			return err
		}
	}
	if err := furnish(config); err != nil {
		return err
	}
	if config.ImageInit {
		if listener == nil {
			return errors.New("the boot configuration has image_init, and no listen")
		}
		if path := findInit(); path != "" {
			return handOver(path, config, listener)
		}
	}
	reaper := reap.New()
	furnishEndings()
	obeyEndings(reaper)
	if config.PowerOff {
		machine.PowerOff(reaper)
	}
	if listener == nil {
		return errors.New("nothing to do: the boot configuration has neither listen nor power_off")
	}
	server := newServer(version, config, reaper)
	server.Shutdown = func() { machine.PowerOff(reaper) }
	if config.ImageInit {
		server.Refusal = failure.New(agentpb.ErrorCode_ERROR_CODE_INIT_NOT_FOUND,
			"the image has no init: none of %s is an executable file", strings.Join(inits, ", "))
	}
	return server.Serve(listener)
}

// newServer is one that doesn't know yet how to end the machine.
func newServer(version string, config *agentpb.BootConfig, reaper *reap.Reaper) *serve.Server {
	return &serve.Server{
		Version:      version,
		Token:        config.Token,
		HelloTimeout: serve.DefaultHelloTimeout,
		Env:          config.Env,
		Guest:        true,
		Reaper:       reaper,
	}
}

func readConfig() (*agentpb.BootConfig, error) {
	data, err := os.ReadFile(configFile)
	if err != nil {
		return nil, fmt.Errorf("no boot configuration: %w", err)
	}
	config := &agentpb.BootConfig{}
	if err := proto.Unmarshal(data, config); err != nil {
		return nil, fmt.Errorf("boot configuration %s: %w", configFile, err)
	}
	if config.GetListen().GetTcpPort() != 0 && len(config.Token) != tokenSize {
		return nil, fmt.Errorf("boot configuration: a TCP port needs a token of %d bytes, not %d", tokenSize, len(config.Token))
	}
	return config, nil
}

// connect brings the network up and listens.
func connect(config *agentpb.BootConfig) (net.Listener, error) {
	if err := network.LoopbackUp(); err != nil {
		return nil, err
	}
	var addresses []network.Configuration
	for _, wanted := range []*agentpb.Network{config.Network, config.Network6} {
		if wanted == nil || (wanted == config.Network6 && !network.HasIPv6()) {
			continue
		}
		parsed, err := network.Parse(wanted.Interface, wanted.Address, wanted.Gateway)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, parsed)
	}
	if err := network.Configure(addresses); err != nil {
		return nil, err
	}
	return listen(config.Listen)
}

// listen answers no listener where none is wanted.
func listen(port *agentpb.Listen) (net.Listener, error) {
	switch {
	case port.GetTcpPort() != 0:
		return net.Listen("tcp", ":"+strconv.Itoa(int(port.TcpPort)))
	case port.GetVsockPort() != 0:
		listener, err := vsock.Listen(port.VsockPort)
		if err != nil {
			return nil, fmt.Errorf("listen on vsock port %d: %w", port.VsockPort, err)
		}
		return listener, nil
	}
	return nil, nil
}

// furnish makes the root file system a place where programs find what they expect.
func furnish(config *agentpb.BootConfig) error {
	if err := mountAll(lateMounts); err != nil {
		return err
	}
	if err := makeTemporary(); err != nil {
		return err
	}
	address := ""
	if prefix, err := netip.ParsePrefix(config.GetNetwork().GetAddress()); err == nil {
		address = prefix.Addr().String()
	}
	if err := identity.TakeName(config.Hostname, address); err != nil {
		return err
	}
	return identity.UseNameservers(config.GetNetwork().GetNameservers())
}

// tellReady writes the line as it is, without what a terminal makes of a line's end.
func tellReady(device string) error {
	file, err := os.OpenFile(device, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	terminal, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	if err == nil {
		terminal.Oflag &^= unix.OPOST
		if err := unix.IoctlSetTermios(int(file.Fd()), unix.TCSETS, terminal); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
	}
	_, err = file.WriteString(readyLine)
	go file.Close() // of a serial line, that waits until the last byte has left
	return err
}
