package machine

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/reap"
)

const (
	// termGrace is how long processes may take to end after SIGTERM.
	termGrace = 3 * time.Second
	// killGrace is how long the kernel may take to end killed ones; those in uninterruptible sleep may never.
	killGrace = time.Second
)

// PowerOff ends a machine whose PID 1 this is: processes first, then file systems, then the power.
func PowerOff(reaper *reap.Reaper) { powerOff(reaper.WaitNone) }

// powerOff is told how to wait until no process is left but this one and PID 1.
func powerOff(waitNone func(patience time.Duration) bool) {
	killAll := func(number syscall.Signal, patience time.Duration) bool {
		_ = unix.Kill(-1, number) // everybody but PID 1 and this process
		return waitNone(patience)
	}
	if !killAll(unix.SIGTERM, termGrace) {
		killAll(unix.SIGKILL, killGrace)
	}
	unix.Sync()
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	Halt()
}

// Halt stops the machine at once. A restart it is, because that is what makes a VMM exit on x86: QEMU with -no-reboot,
// and Firecracker, which knows no power-off.
func Halt() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {} // not reached on a real machine
}
