package boot

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ingle.dev/guest_agent/internal/agentpb"
)

// An agent beside an init can be killed, and no init knows to start it again. But the kernel does what is to be done when
// a control group of the first version has lost its last process: it runs a program. So the agent is alone in one.
const (
	// backDirectory has what an agent needs that comes back. It is on a tmpfs, for root alone: the token is in it.
	backDirectory = "/run/ingle/agent"
	backProgram   = backDirectory + "/program"
	backConfig    = backDirectory + "/boot.binpb"
	backGroups    = backDirectory + "/cgroup"
	backGroup     = backGroups + "/agent"

	// backPause is between the end of an agent and the next one: one that can't live must not keep the guest busy.
	backPause = 200 * time.Millisecond
)

// prepareComeback makes all that is there before the first agent. Where the kernel can't do that, an agent that is killed
// stays away.
func prepareComeback(config *agentpb.BootConfig) error {
	if err := os.MkdirAll(backGroups, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(backDirectory, 0o700); err != nil {
		return err
	}
	if err := writeBackConfig(config); err != nil {
		return err
	}
	if err := copyProgram(); err != nil {
		return err
	}
	if err := unix.Mount("ingle", backGroups, "cgroup", quietFlags, "none,name=ingle"); err != nil {
		return err
	}
	if err := os.Mkdir(backGroup, 0o700); err != nil {
		return err
	}
	for file, value := range map[string]string{
		backGroups + "/release_agent":    backProgram,
		backGroup + "/notify_on_release": "1",
	} {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

func writeBackConfig(config *agentpb.BootConfig) error {
	data, err := proto.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(backConfig+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(backConfig+".new", backConfig)
}

// remember has an agent that comes back be whom this one is told to be.
func remember(config *agentpb.BootConfig, wanted *agentpb.GuestIdentity) error {
	if config.Identity == nil {
		config.Identity = &agentpb.GuestIdentity{}
	}
	if len(wanted.Token) > 0 {
		config.Identity.Token = wanted.Token
	}
	if wanted.Environment != nil {
		config.Identity.Environment = wanted.Environment
	}
	if _, err := os.Stat(backProgram); err != nil {
		return nil // none does
	}
	return writeBackConfig(config)
}

// copyProgram keeps this program, whose file has gone with the initramfs.
func copyProgram() error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(backProgram, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if closed := to.Close(); err == nil {
		err = closed
	}
	return err
}

// watchOver has the kernel start another agent when this one is gone.
func watchOver(pid int) { _ = moveTo(backGroup, pid) }

// letGo has it not wait for a child of an agent.
func letGo(pid int) { _ = moveTo(backGroups, pid) }

func moveTo(group string, pid int) error {
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// IsComeback tells that the kernel has started this program because the agent is gone.
func IsComeback(name string) bool { return name == backProgram }

// ComeBack makes this process the agent beside init; it doesn't return but with an error.
func ComeBack() error {
	time.Sleep(backPause)
	data, err := os.ReadFile(backConfig)
	if err != nil {
		return err
	}
	config, err := bootConfigOf(data)
	if err != nil {
		return err
	}
	listener, err := listen(config.Listen)
	if err != nil {
		return err
	}
	watchOver(os.Getpid())
	_, _ = unix.Setsid()
	return becomeBeside(data, listener)
}

// becomeBeside replaces this program by the agent beside init, with what it finds open.
func becomeBeside(data []byte, listener net.Listener) error {
	socket, err := fileOf(listener)
	if err != nil {
		return err
	}
	secrets, err := toMemory(data)
	if err != nil {
		return err
	}
	console, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	begun, err := os.Open(os.DevNull) // init began long ago
	if err != nil {
		return err
	}
	// Higher first, so that none is overwritten before it has its place.
	for _, place := range []struct{ from, to int }{
		{dup(begun), beginsDescriptor}, {dup(socket), listenerDescriptor}, {dup(secrets), configDescriptor},
		{dup(console), 2}, {dup(console), 1}, {dup(console), 0},
	} {
		if err := unix.Dup2(place.from, place.to); err != nil {
			return os.NewSyscallError("dup2", err)
		}
	}
	environment := []string{"HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return unix.Exec(backProgram, []string{besideName, "--" + BesideInit}, environment)
}

// dup is a descriptor out of the way of those that are about to be taken.
func dup(file *os.File) int {
	const outOfTheWay = 20
	descriptor, _ := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, outOfTheWay)
	return descriptor
}
