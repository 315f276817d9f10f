// Package reap starts child processes and collects them and, for a PID 1 or subreaper, everybody's orphans.
//
// Nothing else in the agent may wait for a process: one reaper sees every exit, so that an exit code can neither be
// lost nor be taken for another process's. A child is looked at before it is reaped, while its zombie still holds the
// process and group id, and signals are sent under the same lock: none can ever hit a process that got the id later.
// Children are started side by side.
package reap

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// killAfter is how long a condemned process group may take to end after SIGTERM.
const killAfter = time.Second

// Reaper owns all waiting of this process. There can be one at a time.
type Reaper struct {
	// forks is held by each that starts a child, until that is in the map, and alone by who must know that all are.
	forks    sync.RWMutex
	mutex    sync.Mutex
	children map[int]*Child
	// news, a signal or none, says that there may be a child again.
	news chan os.Signal
	// held says that no child is to begin; group, unless nil, is the control group in which they do.
	held  bool
	group *os.File
	// letGo, unless nil, says that the kernel spares this process, and its children alike unless told.
	letGo func(pid int)
}

// Child is a process that was started here, the leader of a session and a process group of its own.
type Child struct {
	Pid       int
	reaper    *Reaper
	done      chan struct{}
	status    syscall.WaitStatus
	usage     syscall.Rusage
	stop      syscall.Signal // what it gets before all others get SIGTERM, when everything ends; 0: none
	condemned bool
	afterExit func()
	// Killing it means all of its session, not its process group alone: a shell puts each job in a group of its own.
	wholeSession bool
}

// New makes a Reaper; from then on it reaps.
func New() *Reaper {
	r := &Reaper{children: make(map[int]*Child), news: make(chan os.Signal, 1)}
	signal.Notify(r.news, unix.SIGCHLD)
	go r.reap()
	return r
}

// reap waits in the kernel, for as long as there is anybody to wait for: SIGCHLD comes to whoever awaits it in three steps,
// by way of some other thread's handler. Without a child that is the only way to hear of an orphan, as the kernel's own
// helpers leave PID 1.
func (r *Reaper) reap() {
	for {
		var info unix.Siginfo
		switch err := peek(&info, 0); {
		case err == unix.ECHILD:
			<-r.news
		case err == nil:
			r.take(pidOf(&info))
			runtime.Gosched() // whoever waited for it goes on in this thread
		}
	}
}

// Shield has the kernel spare this process when memory runs out, as it spares PID 1, but none of its children. Each of
// those is let go of as soon as it has begun.
func (r *Reaper) Shield(letGo func(pid int)) error {
	r.forks.Lock()
	defer r.forks.Unlock()
	r.letGo = letGo
	return setSacrifice("self", neverSacrificed)
}

// Into has children begin in a control group, whose directory it is.
func (r *Reaper) Into(group *os.File) {
	r.forks.Lock()
	defer r.forks.Unlock()
	r.group = group
}

// ErrHeld is why no child begins.
var ErrHeld = errors.New("no process may begin now")

// Hold has no child begin any more, but for one with a control group of its own; all others have begun when it returns.
func (r *Reaper) Hold() {
	r.forks.Lock()
	defer r.forks.Unlock()
	r.held = true
}

// Release lets them begin again.
func (r *Reaper) Release() {
	r.forks.Lock()
	defer r.forks.Unlock()
	r.held = false
}

// neverSacrificed is OOM_SCORE_ADJ_MIN; see proc_pid_oom_score_adj(5).
const neverSacrificed = -1000

func setSacrifice(pid string, score int) error {
	return os.WriteFile("/proc/"+pid+"/oom_score_adj", []byte(strconv.Itoa(score)), 0)
}

// Start runs a program as a new session. The error is ErrHeld, or what fork, chdir, setuid or exec said.
func (r *Reaper) Start(path string, argv []string, attributes *syscall.ProcAttr) (*Child, error) {
	if attributes.Sys == nil {
		attributes.Sys = &syscall.SysProcAttr{}
	}
	attributes.Sys.Setsid = true
	// The child may end before it is in the map, and ForkExec itself waits for one that couldn't exec.
	r.forks.RLock()
	defer r.forks.RUnlock()
	if !attributes.Sys.UseCgroupFD {
		if r.held {
			return nil, ErrHeld
		}
		if r.group != nil {
			attributes.Sys.UseCgroupFD, attributes.Sys.CgroupFD = true, int(r.group.Fd())
		}
	}
	pid, err := syscall.ForkExec(path, argv, attributes)
	if err != nil {
		return nil, err
	}
	if r.letGo != nil {
		r.letGo(pid)
		_ = setSacrifice(strconv.Itoa(pid), 0) // one that has ended already is fine
	}
	child := &Child{Pid: pid, reaper: r, done: make(chan struct{})}
	r.mutex.Lock()
	r.children[pid] = child
	r.mutex.Unlock()
	select {
	case r.news <- nil:
	default: // it is known
	}
	return child, nil
}

// SignalAll signals the process groups of all children.
func (r *Reaper) SignalAll(number syscall.Signal) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for pid := range r.children {
		_ = unix.Kill(-pid, number)
	}
}

// StopFirst sends each child that wants a signal of its own that signal, and waits for their ends, but so long at most: it
// is for them to tell their own processes. See StopWith.
func (r *Reaper) StopFirst(patience time.Duration) {
	var told []*Child
	r.mutex.Lock()
	for pid, child := range r.children {
		if child.stop != 0 && unix.Kill(pid, child.stop) == nil {
			_ = unix.Kill(pid, unix.SIGCONT)
			told = append(told, child)
		}
	}
	r.mutex.Unlock()
	late := time.After(patience)
	for _, child := range told {
		select {
		case <-child.done:
		case <-late:
			return
		}
	}
}

// WaitNone waits until this process has no child left, neither its own nor an adopted one, and says whether that came
// true within the time.
func (r *Reaper) WaitNone(timeout time.Duration) bool {
	const interval = 10 * time.Millisecond
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(interval) {
		if err := peek(new(unix.Siginfo), unix.WNOHANG); err == unix.ECHILD {
			return true
		}
	}
	return false
}

// Done is closed when the child was reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status tells how the child ended. It may be asked once Done is closed.
func (c *Child) Status() syscall.WaitStatus { return c.status }

// CPUTime is what the child, and those of its children that it has waited for, took of the processors. It may be asked once
// Done is closed.
func (c *Child) CPUTime() time.Duration {
	return time.Duration(c.usage.Utime.Nano() + c.usage.Stime.Nano())
}

// StopWith says which signal the child is to get, before SIGTERM, when everything ends.
func (c *Child) StopWith(number syscall.Signal) {
	c.reaper.mutex.Lock()
	defer c.reaper.mutex.Unlock()
	c.stop = number
}

// AfterExit has f called in a goroutine of its own once the child was reaped, at once if that is past. There can be one f.
func (c *Child) AfterExit(f func()) {
	c.reaper.mutex.Lock()
	defer c.reaper.mutex.Unlock()
	if c.reaper.children[c.Pid] != c {
		go f()
		return
	}
	c.afterExit = f
}

// Signal signals the child's process group; a child that has ended is fine.
func (c *Child) Signal(number syscall.Signal) error {
	c.reaper.mutex.Lock()
	defer c.reaper.mutex.Unlock()
	if c.reaper.children[c.Pid] != c {
		return nil
	}
	return unix.Kill(-c.Pid, number)
}

// Condemn ends the child's whole process group: SIGTERM now, and SIGKILL as soon as the leader ended, or a second later.
// It says whether the child still ran.
func (c *Child) Condemn() bool { return c.condemn(unix.SIGTERM, false) }

// HangUp ends the child's whole session, as a lost terminal does but more thoroughly: SIGHUP now, and SIGKILL as soon as
// the leader ended, or a second later.
func (c *Child) HangUp() { c.condemn(unix.SIGHUP, true) }

func (c *Child) condemn(polite syscall.Signal, wholeSession bool) bool {
	c.reaper.mutex.Lock()
	defer c.reaper.mutex.Unlock()
	if c.reaper.children[c.Pid] != c {
		return false
	}
	if !c.condemned {
		c.condemned, c.wholeSession = true, wholeSession
		c.signalAll(polite)
		c.signalAll(unix.SIGCONT) // a stopped process doesn't see a polite signal
		time.AfterFunc(killAfter, func() {
			c.reaper.mutex.Lock()
			defer c.reaper.mutex.Unlock()
			if c.reaper.children[c.Pid] == c {
				c.signalAll(unix.SIGKILL)
			}
		})
	}
	return true
}

// signalAll signals what shall end with the child. The reaper is locked, and the child not yet reaped.
func (c *Child) signalAll(number syscall.Signal) {
	_ = unix.Kill(-c.Pid, number)
	if c.wholeSession {
		for _, pid := range sessionMembers(c.Pid) {
			if pid != c.Pid {
				_ = unix.Kill(pid, number)
			}
		}
	}
}

// take collects a process that has ended: a child, or somebody's orphan. One that is not known may also be a child that is
// being started, and is that for as long as it takes.
func (r *Reaper) take(pid int) {
	if r.takeChild(pid) {
		return
	}
	r.forks.Lock()
	defer r.forks.Unlock()
	if !r.takeChild(pid) {
		_, _ = wait(pid, unix.WNOHANG, nil) // nobody's child any more if it couldn't exec
	}
}

// takeChild collects a child that has ended, if it is known.
func (r *Reaper) takeChild(pid int) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	child := r.children[pid]
	if child == nil {
		return false
	}
	if child.condemned {
		child.signalAll(unix.SIGKILL) // what is left
	}
	child.status, _ = wait(pid, 0, &child.usage)
	delete(r.children, pid)
	close(child.done)
	if child.afterExit != nil {
		go child.afterExit()
	}
	return true
}

func wait(pid, options int, usage *syscall.Rusage) (status syscall.WaitStatus, err error) {
	for {
		_, err := syscall.Wait4(pid, &status, options, usage)
		if err != unix.EINTR {
			return status, err
		}
	}
}

// peek waits for an ended child without reaping it. With WNOHANG it doesn't wait, and the pid is 0 when none has ended;
// ECHILD: there is none at all.
func peek(info *unix.Siginfo, options int) error {
	for {
		err := unix.Waitid(unix.P_ALL, 0, info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// pidOf reads si_pid, which follows three ints, aligned to the pointers of the union: see siginfo in
// include/uapi/asm-generic/siginfo.h, for 64-bit machines.
func pidOf(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}
