// Package command starts the programs that callers ask for.
package command

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/launch"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/users"
)

const console = "/dev/console"

// Spec is what shall run. An empty User is root, an empty Directory the user's home (or / when that is absent).
// Env goes over the login environment. A nil Umask is the agent's, and so are limits that are not named.
type Spec struct {
	Argv      []string
	Env       map[string]string
	Directory string
	User      string
	Stdin     bool
	Console   bool // what a detached command says goes there
	Umask     *uint32
	Limits    []*agentpb.ResourceLimit
	Group     *os.File // the control group of a hook; nil: that of all commands
}

// Command is a program under way, with our ends of its pipes. Stdin is nil when it reads /dev/null.
type Command struct {
	*reap.Child
	Stdin, Stdout, Stderr *os.File
}

// Start runs a program as the leader of a new session. Errors a caller can do something about are *failure.Error.
func Start(reaper *reap.Reaper, spec Spec) (*Command, error) {
	program, err := prepareCommand(spec)
	if err != nil {
		return nil, err
	}
	pipes, err := openPipes(spec.Stdin, program.account)
	if err != nil {
		return nil, err
	}
	defer pipes.closeChildEnds()
	attributes := syscall.SysProcAttr{}
	if spec.Group != nil {
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(spec.Group.Fd())
	}
	child, err := program.start(reaper, pipes.child, attributes)
	if err != nil {
		pipes.closeOurEnds()
		return nil, err
	}
	return &Command{Child: child, Stdin: pipes.stdin, Stdout: pipes.stdout, Stderr: pipes.stderr}, nil
}

// StartDetached runs a program that nobody waits for. It reads /dev/null, and writes there or to the console.
func StartDetached(reaper *reap.Reaper, spec Spec) (*reap.Child, error) {
	if spec.Stdin {
		return nil, badRequest("a detached command has no stdin")
	}
	program, err := prepareCommand(spec)
	if err != nil {
		return nil, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer unix.Close(null)
	output := null
	if spec.Console {
		// No session of ours may have it as its terminal: that would get the console's signals.
		if output, err = unix.Open(console, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err != nil {
			return nil, &os.PathError{Op: "open", Path: console, Err: err}
		}
		defer unix.Close(output)
	}
	return program.start(reaper, [3]int{null, output, output}, syscall.SysProcAttr{})
}

// program is all that starting takes but the standard streams.
type program struct {
	path        string
	argv        []string
	directory   string
	environment variables
	account     users.Account
	umask       int // -1: the agent's
	limits      []launch.Limit
}

func prepareCommand(spec Spec) (*program, error) {
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		return nil, badRequest("no command: argv is empty")
	}
	account, err := lookupAccount(spec.User)
	if err != nil {
		return nil, err
	}
	return prepare(spec, account)
}

func prepare(spec Spec, account users.Account) (*program, error) {
	umask, err := umaskOf(spec.Umask)
	if err != nil {
		return nil, err
	}
	limits, err := limitsOf(spec.Limits)
	if err != nil {
		return nil, err
	}
	directory, err := workingDirectory(spec.Directory, account.Home)
	if err != nil {
		return nil, err
	}
	environment, err := environment(account, spec.Env)
	if err != nil {
		return nil, err
	}
	path, err := lookPath(spec.Argv[0], environment["PATH"], directory)
	if err != nil {
		return nil, err
	}
	return &program{path, spec.Argv, directory, environment, account, umask, limits}, nil
}

func (p *program) start(reaper *reap.Reaper, streams [3]int, attributes syscall.SysProcAttr) (*reap.Child, error) {
	var child *reap.Child
	var err error
	if p.umask >= 0 || len(p.limits) > 0 {
		child, err = launch.Start(reaper, launch.Program{
			Path:        p.path,
			Argv:        p.argv,
			Environment: p.environment.list(),
			Directory:   p.directory,
			Umask:       p.umask,
			Limits:      p.limits,
			Credential:  credential(p.account),
		}, streams, attributes)
	} else {
		attributes.Credential = credential(p.account)
		child, err = reaper.Start(p.path, p.argv, &syscall.ProcAttr{
			Dir:   p.directory,
			Env:   p.environment.list(),
			Files: []uintptr{uintptr(streams[0]), uintptr(streams[1]), uintptr(streams[2])},
			Sys:   &attributes,
		})
	}
	if err != nil {
		return nil, startFailure(p.path, p.directory, err)
	}
	return child, nil
}

func lookupAccount(user string) (users.Account, error) {
	if user == "" && os.Geteuid() != 0 {
		user = strconv.Itoa(os.Geteuid()) // an agent that isn't root, in test mode, can only be itself
	}
	account, err := users.System.LookupAs(user)
	var noUser users.NotFoundError
	var noGroup users.GroupNotFoundError
	switch {
	case errors.As(err, &noUser):
		return account, failure.New(agentpb.ErrorCode_ERROR_CODE_USER_NOT_FOUND, "%s", noUser.Error())
	case errors.As(err, &noGroup):
		return account, failure.New(agentpb.ErrorCode_ERROR_CODE_GROUP_NOT_FOUND, "%s", noGroup.Error())
	}
	return account, err
}

// credential is nil when there is nothing to change, since only root may even try.
func credential(account users.Account) *syscall.Credential {
	if os.Geteuid() != 0 && int(account.UID) == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: account.UID, Gid: account.GID, Groups: account.Groups}
}

func workingDirectory(wanted, home string) (string, error) {
	if wanted == "" {
		if isDirectory(home) {
			return home, nil
		}
		return "/", nil
	}
	if !filepath.IsAbs(wanted) {
		return "", badRequest("working directory %q: must be absolute", wanted)
	}
	if !isDirectory(wanted) {
		return "", failure.New(agentpb.ErrorCode_ERROR_CODE_DIRECTORY_NOT_FOUND, "no directory %q in the guest", wanted)
	}
	return wanted, nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// startFailure says what an errno of fork, chdir, setuid or exec means, now that path and directory are known to exist.
func startFailure(path, directory string, err error) error {
	const code = agentpb.ErrorCode_ERROR_CODE_COMMAND_NOT_EXECUTABLE
	if errors.Is(err, reap.ErrHeld) {
		return failure.New(agentpb.ErrorCode_ERROR_CODE_RESTING, "cannot run %s: the guest rests", path)
	}
	var refused *launch.LimitError
	if errors.As(err, &refused) {
		return limitFailure(refused)
	}
	switch err {
	case unix.EACCES:
		return failure.New(code, "cannot run %s in %s: permission denied", path, directory)
	case unix.ENOENT:
		return failure.New(code, "cannot run %s: the interpreter or dynamic loader it asks for is missing", path)
	case unix.ENOEXEC:
		return failure.New(code, "cannot run %s: not a program for this machine, nor a script with a #! line", path)
	case unix.E2BIG:
		return failure.New(code, "cannot run %s: arguments and environment are too long", path)
	case unix.EPERM:
		return failure.New(code, "cannot run %s: operation not permitted", path)
	case unix.EAGAIN:
		return failure.New(code, "cannot run %s: the user has too many processes", path)
	}
	return failure.New(agentpb.ErrorCode_ERROR_CODE_INTERNAL, "cannot run %s: %v", path, err)
}

func badRequest(format string, arguments ...any) *failure.Error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST, format, arguments...)
}
