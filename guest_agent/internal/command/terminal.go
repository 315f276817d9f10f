package command

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/users"
)

const (
	fallbackShell = "/bin/sh"
	defaultTerm   = "xterm"
)

// Size is that of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// Terminal is a program under way on a pseudo-terminal; see pty(7). Master is non-blocking: input in, output out. Slave
// is the program's side: as long as it is open, the end of Master isn't mistaken for a moment without a reader.
type Terminal struct {
	*reap.Child
	Argv          []string
	Master, Slave *os.File
}

// StartTerminal runs a program as the leader of a new session on a terminal of its own. Without argv that is the user's
// login shell. Errors a caller can do something about are *failure.Error.
func StartTerminal(reaper *reap.Reaper, spec Spec, size Size) (*Terminal, error) {
	account, err := lookupAccount(spec.User)
	if err != nil {
		return nil, err
	}
	login := len(spec.Argv) == 0
	if login {
		spec.Argv = []string{loginShell(account)}
	} else if spec.Argv[0] == "" {
		return nil, badRequest("no command: argv[0] is empty")
	}
	program, err := prepare(spec, account)
	if err != nil {
		return nil, err
	}
	if login {
		program.argv = []string{"-" + filepath.Base(program.path)} // by which a shell knows, see login(1)
	}
	if program.environment["TERM"] == "" {
		program.environment["TERM"] = defaultTerm
	}
	master, slave, err := openTerminal(account)
	if err != nil {
		return nil, err
	}
	terminal := &Terminal{Argv: spec.Argv, Master: master, Slave: slave}
	if err = terminal.Resize(size); err == nil {
		fd := int(slave.Fd())
		terminal.Child, err = program.start(reaper, [3]int{fd, fd, fd}, syscall.SysProcAttr{Setctty: true, Ctty: 0})
	}
	if err != nil {
		_ = master.Close()
		_ = slave.Close()
		return nil, err
	}
	return terminal, nil
}

// Resize sets the terminal's size; the program gets a SIGWINCH when that is a new one.
func (t *Terminal) Resize(size Size) error {
	raw, err := t.Master.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("TIOCSWINSZ", ioctlErr)
}

func loginShell(account users.Account) string {
	if info, err := os.Stat(account.Shell); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return account.Shell
	}
	return fallbackShell
}

// openTerminal makes a pseudo-terminal that belongs to the account, as login(1) has it.
func openTerminal(account users.Account) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, os.NewSyscallError("TIOCSPTLCK", err)
	}
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, os.NewSyscallError("TIOCGPTN", err)
	}
	path := "/dev/pts/" + strconv.Itoa(int(number))
	slave, err = os.OpenFile(path, unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err = furnish(slave, account); err != nil {
		_ = slave.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

// furnish gives the terminal to the account, and tells it that a character may have several bytes.
func furnish(slave *os.File, account users.Account) error {
	fd := int(slave.Fd())
	if os.Geteuid() == 0 {
		if err := slave.Chown(int(account.UID), -1); err != nil {
			return err
		}
	}
	settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("TCGETS", err)
	}
	settings.Iflag |= unix.IUTF8
	return os.NewSyscallError("TCSETS", unix.IoctlSetTermios(fd, unix.TCSETS, settings))
}
