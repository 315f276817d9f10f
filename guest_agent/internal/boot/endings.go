package boot

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/machine"
	"ingle.dev/guest_agent/internal/reap"
)

// endings are the commands that end a machine, and the signals that they send to PID 1: those of busybox.
var endings = map[string]unix.Signal{"halt": unix.SIGUSR1, "poweroff": unix.SIGUSR2, "reboot": unix.SIGTERM}

const (
	// ownCommands has those that an image lacks. It is gone when another init is PID 1.
	ownCommands = "/run/ingle/bin"
	// commandLinks is where shells look for them, before all others.
	commandLinks = "/usr/local/sbin"
	// initPipe is where poweroff and reboot of sysvinit, and those of systemd where it isn't PID 1, send requests.
	initPipe = "/run/initctl"
)

// commandPath is where else they may be.
var commandPath = []string{"/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// End tells whether this program was started as a command that ends the machine, and how that went.
func End(name string) (bool, error) {
	number, known := endings[filepath.Base(name)]
	if !known {
		return false, nil
	}
	if err := unix.Kill(1, number); err != nil {
		return true, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return true, nil
}

// furnishEndings gives the guest what its image lacks of these commands: links to this program, which PID 1 runs. An
// image that can't take them does without.
func furnishEndings() {
	_ = os.MkdirAll(ownCommands, 0o755)
	for name := range endings {
		own, link := filepath.Join(ownCommands, name), filepath.Join(commandLinks, name)
		target, _ := os.Readlink(link)
		if has(name) {
			if target == own {
				_ = os.Remove(link)
			}
			continue
		}
		_ = os.Symlink("/proc/1/exe", own)
		if target != own {
			_ = os.MkdirAll(commandLinks, 0o755)
			_ = os.Symlink(own, link)
		}
	}
}

func has(command string) bool {
	for _, directory := range commandPath {
		if _, err := os.Stat(filepath.Join(directory, command)); err == nil {
			return true
		}
	}
	return false
}

// obeyEndings does what these commands ask of PID 1, and Ctrl-Alt-Del.
func obeyEndings(reaper *reap.Reaper) {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) // Ctrl-Alt-Del: a SIGINT for us, not a reset
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2)
	go readInitPipe(asked)
	go func() {
		switch <-asked {
		case unix.SIGTERM, unix.SIGINT:
			machine.Restart(reaper)
		default:
			machine.PowerOff(reaper)
		}
	}()
}

// readInitPipe passes on what sysvinit's protocol asks for; see its initreq.h.
func readInitPipe(asked chan<- os.Signal) {
	const size, magic, changeRunLevel = 384, 0x03091969, 1
	if unix.Mkfifo(initPipe, 0o600) != nil {
		return
	}
	pipe, err := os.OpenFile(initPipe, os.O_RDWR, 0) // for writing too, so that it never ends
	if err != nil {
		return
	}
	request := make([]byte, size)
	for {
		if _, err := io.ReadFull(pipe, request); err != nil {
			return
		}
		if binary.NativeEndian.Uint32(request) != magic || binary.NativeEndian.Uint32(request[4:]) != changeRunLevel {
			continue
		}
		switch binary.NativeEndian.Uint32(request[8:]) {
		case '0':
			asked <- unix.SIGUSR2
		case '6':
			asked <- unix.SIGTERM
		}
	}
}
