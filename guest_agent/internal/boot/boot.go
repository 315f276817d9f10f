// Package boot is what the agent does as PID 1 of a guest, from the first instruction of user space until it serves.
package boot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/entropy"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/groups"
	"ingle.dev/guest_agent/internal/identity"
	"ingle.dev/guest_agent/internal/machine"
	"ingle.dev/guest_agent/internal/machineid"
	"ingle.dev/guest_agent/internal/mux"
	"ingle.dev/guest_agent/internal/naming"
	"ingle.dev/guest_agent/internal/network"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/rest"
	"ingle.dev/guest_agent/internal/serve"
	"ingle.dev/guest_agent/internal/vsock"
)

// Where the initramfs has what we need.
const (
	configFile      = "/ingle/boot.binpb"
	moduleDirectory = "/ingle/modules"
	newRoot         = "/ingle.root"
)

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
	if err := entropy.Credit(config.GetIdentity().GetEntropy()); err != nil {
		return err
	}
	if err := loadModules(moduleDirectory); err != nil {
		return err
	}
	if err := loadModulesOf(config.ModulesDevice); err != nil {
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
	server, err := newServer(version, config, reaper)
	if err != nil {
		return err
	}
	server.Shutdown = func() { machine.PowerOff(reaper) }
	if config.ImageInit {
		server.Refusal = failure.New(agentpb.ErrorCode_ERROR_CODE_INIT_NOT_FOUND,
			"the image has no init: none of %s is an executable file", strings.Join(inits, ", "))
	}
	return server.Serve(listener)
}

// newServer is one that doesn't know yet how to end the machine.
func newServer(version string, config *agentpb.BootConfig, reaper *reap.Reaper) (*serve.Server, error) {
	kept, err := groups.Prepare()
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	reaper.Into(kept.Commands)
	return &serve.Server{
		Version:      version,
		Token:        config.GetIdentity().GetToken(),
		HelloTimeout: serve.DefaultHelloTimeout,
		Env:          config.GetIdentity().GetEnvironment().GetVariables(),
		Guest:        true,
		RootDevice:   config.RootDevice,
		Reaper:       reaper,
		Sleeper:      &rest.Guest{Reaper: reaper, Groups: kept},
	}, nil
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
	if size := len(config.GetIdentity().GetToken()); config.GetListen().GetSerialPort() != "" && size != identity.TokenSize {
		return nil, fmt.Errorf("boot configuration: a serial port needs a token of %d bytes, not %d", identity.TokenSize, size)
	}
	return config, nil
}

// connect brings the network up and listens.
func connect(config *agentpb.BootConfig) (net.Listener, error) {
	if err := network.LoopbackUp(); err != nil {
		return nil, err
	}
	addresses, err := identity.Addresses(config.GetIdentity().GetNetworks())
	if err != nil {
		return nil, err
	}
	if err := network.Configure(addresses); err != nil {
		return nil, err
	}
	return listen(config.Listen)
}

// listen answers no listener where none is wanted.
func listen(port *agentpb.Listen) (net.Listener, error) {
	switch {
	case port.GetSerialPort() != "":
		file, err := mux.Open(port.SerialPort)
		if err != nil {
			return nil, err
		}
		return mux.Listen(file)
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
	goWithout("its kernel's modules", showModules(config.ModulesDevice))
	wanted := config.GetIdentity()
	address := ""
	var nameservers []string
	for _, network := range wanted.GetNetworks() {
		if prefix, err := netip.ParsePrefix(network.Address); err == nil && address == "" {
			address = prefix.Addr().String()
		}
		nameservers = append(nameservers, network.Nameservers...)
	}
	// What stands in their places is the guest's own doing. It must come up all the same: who else could mend it?
	goWithout("its name in /etc", naming.TakeName(wanted.GetHostname(), address))
	if id := wanted.GetMachineId(); id != "" {
		_, err := machineid.Take(id, config.ImageInit && isSystemd(findInit()))
		goWithout("a machine-id of its own", err)
	}
	goWithout("nameservers", naming.UseNameservers(nameservers))
	return nil
}

// goWithout tells on the console what the guest has not got.
func goWithout(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ningle-agent: the guest goes without %s: %v\n", what, err)
	}
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
