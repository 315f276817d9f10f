package launch

import (
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notALimit is reported for a failure of anything else.
const notALimit = -1

// Run is the main function of the step in between. It doesn't return.
func Run() {
	debug.SetGCPercent(-1)
	runtime.LockOSThread() // changing the user changes a thread, and exec keeps the calling one
	unix.CloseOnExec(orderFile)
	unix.CloseOnExec(reportPipe)
	if err := run(); err != nil {
		report(notALimit, syscall.EINVAL)
	}
}

func run() error {
	text, err := io.ReadAll(os.NewFile(orderFile, "order"))
	if err != nil {
		return err
	}
	program, err := decode(text)
	if err != nil {
		return err
	}
	prepared, err := program.prepare()
	if err != nil {
		return err
	}
	// Go has raised the limit of open files for itself; what puts it back for a program to follow is an attempt to exec.
	_ = syscall.Exec("", nil, nil)
	prepared.become()
	return nil
}

// prepared is a program as the kernel takes it.
type prepared struct {
	path, directory   *byte
	argv, environment []*byte
	umask             int
	limits            []Limit
	credential        *syscall.Credential
}

func (p *Program) prepare() (ready *prepared, err error) {
	ready = &prepared{umask: p.Umask, limits: p.Limits, credential: p.Credential}
	if ready.path, err = syscall.BytePtrFromString(p.Path); err != nil {
		return nil, err
	}
	if ready.directory, err = syscall.BytePtrFromString(p.Directory); err != nil {
		return nil, err
	}
	if ready.argv, err = syscall.SlicePtrFromStrings(p.Argv); err != nil {
		return nil, err
	}
	ready.environment, err = syscall.SlicePtrFromStrings(p.Environment)
	return ready, err
}

// become changes the process and executes the program; it returns only when that failed, and is told. From the first
// limit on, nothing may need memory, a thread or a descriptor: so there are raw system calls and no allocations.
func (p *prepared) become() {
	if p.umask >= 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_UMASK, uintptr(p.umask), 0, 0)
	}
	for index := range p.limits {
		limit := &p.limits[index]
		if errno := setLimit(limit.Resource, limit.Soft, limit.Hard); errno != 0 {
			report(index, errno)
			return
		}
	}
	errno := p.setUser()
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(p.directory)), 0, 0)
	}
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(p.path)),
			uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.environment[0])))
	}
	report(notALimit, errno)
}

func setLimit(resource int, soft, hard uint64) syscall.Errno {
	wanted := [2]uint64{soft, hard}
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(resource), uintptr(unsafe.Pointer(&wanted)), 0, 0, 0)
	return errno
}

func (p *prepared) setUser() syscall.Errno {
	user := p.credential
	if user == nil {
		return 0
	}
	var groups unsafe.Pointer
	if len(user.Groups) > 0 {
		groups = unsafe.Pointer(&user.Groups[0])
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(user.Groups)), uintptr(groups), 0)
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, uintptr(user.Gid), uintptr(user.Gid), uintptr(user.Gid))
	}
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user.Uid), uintptr(user.Uid), uintptr(user.Uid))
	}
	return errno
}

// report tells the agent which limit (or notALimit) failed, and ends the process, for which Go would need too much.
func report(failed int, errno syscall.Errno) {
	var told [8]byte
	binary.LittleEndian.PutUint32(told[:4], uint32(failed))
	binary.LittleEndian.PutUint32(told[4:], uint32(errno))
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, reportPipe, uintptr(unsafe.Pointer(&told)), uintptr(len(told)))
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
}
