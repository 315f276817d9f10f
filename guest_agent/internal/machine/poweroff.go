package machine

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/reap"
)

const (
	// termGrace is how long processes may take to end after SIGTERM, and before it those that want another signal.
	termGrace = 3 * time.Second
	// killGrace is how long the kernel may take to end killed ones; those in uninterruptible sleep may never.
	killGrace = time.Second
)

// PowerOff ends a machine whose PID 1 this is: processes first, then file systems, then the power.
func PowerOff(reaper *reap.Reaper) {
	reaper.StopFirst(termGrace)
	end(reaper.WaitNone, Halt)
}

// Restart does the same to boot again.
func Restart(reaper *reap.Reaper) {
	reaper.StopFirst(termGrace)
	end(reaper.WaitNone, restart)
}

// end is told how to wait until no process is left but this one and PID 1, and what comes last.
func end(waitNone func(patience time.Duration) bool, last func()) {
	killAll := func(number syscall.Signal, patience time.Duration) bool {
		_ = unix.Kill(-1, number) // everybody but PID 1 and this process
		return waitNone(patience)
	}
	if !killAll(unix.SIGTERM, termGrace) {
		killAll(unix.SIGKILL, killGrace)
	}
	unix.Sync()
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	last()
}

// poweredOff is what the kernel says on its console that it restarts with: by that the host knows that nobody wants to.
const poweredOff = "power off"

// Halt stops the machine at once. A restart it is, because that is what makes a VMM exit on x86: QEMU with -no-reboot,
// and Firecracker, which knows no power-off.
func Halt() {
	command, _ := unix.BytePtrFromString(poweredOff)
	_, _, _ = unix.Syscall6(unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2,
		unix.LINUX_REBOOT_CMD_RESTART2, uintptr(unsafe.Pointer(command)), 0, 0)
	restart()
}

func restart() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {} // not reached on a real machine
}
