package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/reap"
)

// systemdReboot is SIGRTMIN+5 as glibc counts; see systemd(1), "SIGNALS".
const systemdReboot = syscall.Signal(34 + 5)

// AskInit has the init that is PID 1 end the machine, by a restart as Halt does, and as orderly as it knows how to.
func AskInit(reaper *reap.Reaper) {
	// Our own processes first. To init they are strangers, for which it may wait long: an interactive shell ignores
	// SIGTERM, and systemd waits ninety seconds.
	reaper.StopFirst(termGrace)
	reaper.SignalAll(unix.SIGHUP)
	reaper.SignalAll(unix.SIGTERM)
	if !reaper.WaitNone(termGrace) {
		reaper.SignalAll(unix.SIGKILL)
		reaper.WaitNone(killGrace)
	}
	unix.Sync()
	switch initProgram() {
	case "systemd":
		if unix.Kill(1, systemdReboot) == nil {
			return
		}
	case "busybox": // SIGTERM restarts, SIGUSR2 powers off; see its init.c
		if unix.Kill(1, unix.SIGTERM) == nil {
			return
		}
	default:
		for _, path := range []string{"/sbin/reboot", "/usr/sbin/reboot", "/bin/reboot"} {
			if _, err := reaper.Start(path, []string{"reboot"}, &syscall.ProcAttr{Dir: "/", Env: os.Environ()}); err == nil {
				return
			}
		}
	}
	// An init that nobody knows how to ask.
	end(waitAlone, Halt)
}

// initProgram is what PID 1 runs. An upgrade may have replaced it.
func initProgram() string {
	program, _ := os.Readlink("/proc/1/exe")
	return filepath.Base(strings.TrimSuffix(program, " (deleted)"))
}

// systemdSocket is where systemctl reaches a systemd without D-Bus.
const systemdSocket = "/run/systemd/private"

// AwaitInit returns when PID 1 can be talked to if it is systemd: otherwise the first systemctl of every caller would
// fail. Others give no sign.
func AwaitInit(patience time.Duration) {
	const interval = 20 * time.Millisecond
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(interval) {
		if _, err := os.Stat(systemdSocket); err == nil || initProgram() != "systemd" {
			return
		}
	}
}

// waitAlone waits until there is no process but PID 1, this one, and the kernel's, which have no command line.
func waitAlone(patience time.Duration) bool {
	const interval = 50 * time.Millisecond
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(interval) {
		if alone() {
			return true
		}
	}
	return false
}

func alone() bool {
	paths, _ := filepath.Glob("/proc/[1-9]*/cmdline")
	for _, path := range paths {
		pid := filepath.Base(filepath.Dir(path))
		if pid == "1" || pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		if line, err := os.ReadFile(path); err == nil && len(line) > 0 {
			return false
		}
	}
	return true
}
