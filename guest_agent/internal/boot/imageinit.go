package boot

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/groups"
	"ingle.dev/guest_agent/internal/machine"
	"ingle.dev/guest_agent/internal/mux"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/vsock"
)

// BesideInit is the option with which PID 1 starts the agent that goes on beside the image's own init.
const BesideInit = "beside-init"

// inits are where Linux itself looks for one.
var inits = []string{"/sbin/init", "/etc/init", "/bin/init"}

// besideName is what that agent is called. Whose name begins with an @ is left alone by systemd when it kills all
// processes at the end: without the agent, the host could not tell a guest that hangs there from one that is slow.
const besideName = "@ingle-agent"

// initPatience is how long callers wait, in the listener's queue, for an init to become one that can be asked.
const initPatience = 20 * time.Second

// What the agent beside init finds open.
const (
	configDescriptor   = 3
	listenerDescriptor = 4
	beginsDescriptor   = 5 // ends when init begins
)

// findInit answers the image's init, or nothing.
func findInit() string {
	for _, path := range inits {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// isSystemd tells whether that is what an init is: a link to it, on all systems that have it.
func isSystemd(init string) bool {
	program, err := filepath.EvalSymlinks(init)
	return err == nil && filepath.Base(program) == "systemd"
}

// handOver starts an agent that takes over the listener, and becomes the image's init; it doesn't return but with an
// error.
func handOver(init string, config *agentpb.BootConfig, listener net.Listener) error {
	socket, err := fileOf(listener)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(config)
	if err != nil {
		return err
	}
	secrets, err := toMemory(data)
	if err != nil {
		return err
	}
	begins, stillUs, err := os.Pipe() // which ends when this program becomes another
	if err != nil {
		return err
	}
	defer stillUs.Close()
	program := backProgram
	if err := prepareComeback(config); err != nil {
		fmt.Fprintf(os.Stderr, "ingle-agent: will not come back when it is killed: %v\n", err)
		program = "/proc/self/exe" // a link that leads to the program though the initramfs, where it was, is no more
	}
	pid, err := syscall.ForkExec(program, []string{besideName, "--" + BesideInit}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, secrets.Fd(), socket.Fd(), begins.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start the agent beside %s: %w", init, err)
	}
	watchOver(pid)
	// Out of the groups that an init makes for its services, before there is one.
	if err := groups.Place(pid); err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", init, syscall.Exec(init, []string{init}, os.Environ()))
}

// fileOf is the socket of a listener, for another program.
func fileOf(listener net.Listener) (*os.File, error) {
	open, ok := listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("the listener can't be handed over")
	}
	return open.File()
}

// toMemory writes the configuration to a file that nobody else can open: it has the token.
func toMemory(data []byte) (*os.File, error) {
	descriptor, err := unix.MemfdCreate("ingle-boot", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(descriptor), "boot configuration")
	if _, err := file.Write(data); err != nil {
		return nil, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, err
}

// bootConfigOf is the configuration that PID 1 has left for the agent beside init.
func bootConfigOf(data []byte) (*agentpb.BootConfig, error) {
	config := &agentpb.BootConfig{}
	if err := proto.Unmarshal(data, config); err != nil {
		return nil, fmt.Errorf("boot configuration: %w", err)
	}
	return config, nil
}

// ServeBesideInit is the life of that agent. It reaps its own children only: orphans are init's.
func ServeBesideInit(version string) error {
	file := os.NewFile(configDescriptor, "boot configuration")
	data, err := io.ReadAll(file)
	if err != nil {
		return fmt.Errorf("--%s is for PID 1 alone: %w", BesideInit, err)
	}
	_ = file.Close()
	config, err := bootConfigOf(data)
	if err != nil {
		return err
	}
	listener, err := takeListener(config.Listen)
	if err != nil {
		return err
	}
	reaper := reap.New()
	if err := reaper.Shield(letGo); err != nil {
		return err
	}
	server, err := newServer(version, config, reaper)
	if err != nil {
		return err
	}
	server.Remember = func(wanted *agentpb.GuestIdentity) error { return remember(config, wanted) }
	server.Shutdown = func() { machine.AskInit(reaper) }
	begins := os.NewFile(beginsDescriptor, "until init begins")
	_, _ = begins.Read(make([]byte, 1))
	_ = begins.Close() // now: once it is garbage, the number may be somebody else's
	machine.AwaitInit(initPatience)
	return server.Serve(listener)
}

func takeListener(port *agentpb.Listen) (net.Listener, error) {
	if port.GetVsockPort() != 0 {
		return vsock.FromFile(os.NewFile(listenerDescriptor, "listener"), port.VsockPort)
	}
	return mux.Inherit(listenerDescriptor, port.GetSerialPort())
}
