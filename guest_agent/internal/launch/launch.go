// Package launch starts a command with a umask and resource limits of its own, which fork and exec alone don't give.
//
// Both belong to a process, and this one must keep its own. So the child becomes this same binary once more, under
// another name: it changes itself, then becomes the command. Commands that ask for neither don't come this way.
package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/reap"
)

// Name is the argv[0] by which the binary knows that it is the step in between.
const Name = "ingle-launch"

// ownBinary works also after the initramfs, and the binary's name with it, has been deleted.
const ownBinary = "/proc/self/exe"

// The launcher's descriptors behind the standard streams.
const (
	orderFile  = 3
	reportPipe = 4
)

// Program is what the child is to become. Umask -1 keeps the agent's, a nil Credential its user.
type Program struct {
	Path        string
	Argv        []string
	Environment []string
	Directory   string
	Umask       int
	Limits      []Limit
	Credential  *syscall.Credential
}

// Limit is one of getrlimit(2). Resource is the number of an RLIMIT_ constant; the largest number is unlimited.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// LimitError tells which limit could not be set.
type LimitError struct {
	Limit Limit
	Errno syscall.Errno
}

func (e *LimitError) Error() string { return fmt.Sprintf("limit %d: %v", e.Limit.Resource, e.Errno) }

// Start starts the program with these standard streams. The error is what chdir, setuid or exec said, or *LimitError.
func Start(reaper *reap.Reaper, program Program, streams [3]int, attributes syscall.SysProcAttr) (*reap.Child, error) {
	order, err := program.write()
	if err != nil {
		return nil, err
	}
	defer order.Close()
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer report.Close()
	child, err := reaper.Start(ownBinary, []string{Name}, &syscall.ProcAttr{
		Env: []string{}, // the command's own could change how Go runs
		Files: []uintptr{
			uintptr(streams[0]), uintptr(streams[1]), uintptr(streams[2]), order.Fd(), reportEnd.Fd(),
		},
		Sys: &attributes,
	})
	_ = reportEnd.Close()
	if err != nil {
		return nil, err
	}
	if err := program.failure(report); err != nil {
		<-child.Done()
		return nil, err
	}
	return child, nil
}

// failure waits until the launcher has become the program, or tells why not.
func (p *Program) failure(report io.Reader) error {
	var told [8]byte
	if _, err := io.ReadFull(report, told[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // exec closed it, or a signal came before, which is how the command ended then
		}
		return err
	}
	failed, errno := int(int32(binary.LittleEndian.Uint32(told[:4]))), syscall.Errno(binary.LittleEndian.Uint32(told[4:]))
	if failed >= 0 && failed < len(p.Limits) {
		return &LimitError{p.Limits[failed], errno}
	}
	return errno
}

// write puts the program into a file in memory, which has no size to exceed, as a pipe or an argument list has.
func (p *Program) write() (*os.File, error) {
	fd, err := unix.MemfdCreate(Name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), Name)
	_, err = file.Write(p.encode())
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
