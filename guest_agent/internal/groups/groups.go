// Package groups keeps the agent apart from everything else in the guest, in control groups, so that all else can be
// frozen; see Documentation/admin-guide/cgroup-v2.rst.
package groups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mountPoint is where systems have the one hierarchy, or beside those of the first version, as systemd had it once.
	mountPoint       = "/sys/fs/cgroup"
	hybridMountPoint = mountPoint + "/unified"

	// ours has the groups below: no init, and no container engine, has a group of that name.
	ours = "ingle"
	// agentGroup has the agent alone, commandsGroup what callers start, and hooksGroup what runs while all else is frozen.
	agentGroup    = ours + "/agent"
	commandsGroup = ours + "/commands"
	hooksGroup    = ours + "/hooks"

	freezeFile = "cgroup.freeze"

	// How soon it is looked again whether all stands still: at first at once, then so that it has the time to.
	lookAgain      = time.Millisecond
	lookAgainLater = 50 * time.Millisecond
)

// Groups are those of this guest.
type Groups struct {
	root, proc *os.Root
	// Commands and Hooks are directories to start processes in, by clone3(2).
	Commands, Hooks *os.File
	// frozen are those that Freeze has frozen, which are not all that were frozen then. Nil: nobody knows.
	frozen []string
}

// Prepare makes what isn't there yet, and moves this process to its own group.
func Prepare() (*Groups, error) {
	visible := mountPoint
	if !isHierarchy(visible) && isHierarchy(hybridMountPoint) {
		visible = hybridMountPoint
	}
	root, err := mounted("cgroup2", visible)
	if err != nil {
		return nil, err
	}
	return prepare(root)
}

func prepare(root *os.Root) (*Groups, error) {
	proc, err := mounted("proc", "/proc")
	if err != nil {
		return nil, err
	}
	g := &Groups{root: root, proc: proc}
	for _, group := range []string{agentGroup, commandsGroup, hooksGroup} {
		if err := g.root.MkdirAll(group, 0o755); err != nil {
			return nil, err
		}
	}
	if err := g.move(os.Getpid(), agentGroup); err != nil {
		return nil, err
	}
	if g.Commands, err = g.root.Open(commandsGroup); err != nil {
		return nil, err
	}
	g.Hooks, err = g.root.Open(hooksGroup)
	return g, err
}

// mounted is a file system of the kernel's, in no place of any name space: whoever is root in the guest can put something
// over a visible one, a FIFO say, at which an agent that opens it waits for ever. A kernel before 5.2 has it visible only.
func mounted(kind, visible string) (*os.Root, error) {
	if hidden, err := mount(kind); err == nil {
		return os.OpenRoot("/proc/self/fd/" + strconv.Itoa(hidden))
	}
	return os.OpenRoot(visible)
}

// mount answers a descriptor, with which the mount would go; see fsmount(2).
func mount(kind string) (int, error) {
	context, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, err
	}
	return unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func isHierarchy(path string) bool {
	var system unix.Statfs_t
	return unix.Statfs(path, &system) == nil && system.Type == unix.CGROUP2_SUPER_MAGIC
}

// Place moves a process, the one that is to be the agent, to the agent's group.
func Place(pid int) error {
	if err := os.MkdirAll(filepath.Join(mountPoint, agentGroup), 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(mountPoint)
	if err != nil {
		return err
	}
	defer root.Close()
	return (&Groups{root: root}).move(pid, agentGroup)
}

// Frozen tells whether Freeze was the last word, of an earlier agent say.
func (g *Groups) Frozen() bool { return g.read(commandsGroup, freezeFile) == "1" }

// Freeze has every process stand still but the kernel's and the agent's own. An error says which would not in time; then
// all go on.
func (g *Groups) Freeze(patience time.Duration) error {
	g.frozen = []string{}
	kernels := map[int]bool{}
	pause := lookAgain
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		pause = min(2*pause, lookAgainLater)
		still, err := g.freezeOnce(kernels)
		if err == nil && still {
			return nil
		}
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("%s would not stand still within %s", g.restless(), patience)
		}
		if err != nil {
			return errors.Join(err, g.Thaw())
		}
	}
}

// freezeOnce freezes what there is now, and answers whether all of that stands still.
func (g *Groups) freezeOnce(kernels map[int]bool) (bool, error) {
	strays, err := g.gather(kernels)
	if err != nil {
		return false, err
	}
	groups, err := g.others()
	if err != nil {
		return false, err
	}
	still := !strays
	for _, group := range groups {
		if g.read(group, freezeFile) != "1" {
			if err := g.write(group, freezeFile, "1"); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				continue // it has gone
			} else if err != nil {
				return false, err
			}
			g.frozen = append(g.frozen, group)
		}
		still = still && g.stands(group)
	}
	return still, nil
}

// Thaw has them go on: those that Freeze has frozen, or all when that was another agent.
func (g *Groups) Thaw() error {
	groups := g.frozen
	if groups == nil {
		var err error
		if groups, err = g.others(); err != nil {
			return err
		}
	}
	var failed error
	for _, group := range groups {
		if err := g.write(group, freezeFile, "0"); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			failed = errors.Join(failed, err)
		}
	}
	g.frozen = nil
	return failed
}

// ThawHooks lets only those go on, for one that is about to run.
func (g *Groups) ThawHooks() error { return g.write(hooksGroup, freezeFile, "0") }

// LeaveHooks has what a hook has left behind stand still, or go on, with all others.
func (g *Groups) LeaveHooks() {
	for _, pid := range g.members(hooksGroup) {
		_ = g.move(pid, commandsGroup)
	}
}

// others are all groups below which processes may be but the agent's own: the outermost.
func (g *Groups) others() ([]string, error) {
	var found []string
	for _, parent := range []string{"", ours, agentGroup} {
		entries, err := fs.ReadDir(g.root.FS(), filepath.Join(".", parent))
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			group := filepath.Join(parent, entry.Name())
			if entry.IsDir() && group != ours && group != agentGroup {
				found = append(found, group)
			}
		}
	}
	return found, nil
}

// gather moves to the commands what is where nothing can be frozen, or with the agent: root may have put it there. It
// answers whether there was anything, and has the kernel's own threads noted.
func (g *Groups) gather(kernels map[int]bool) (bool, error) {
	// Somebody may have moved everybody there was, as images for Docker in Docker do.
	if err := g.move(os.Getpid(), agentGroup); err != nil {
		return false, err
	}
	found := false
	for _, group := range []string{"", ours, agentGroup} {
		for _, pid := range g.members(group) {
			if pid == os.Getpid() || kernels[pid] {
				continue
			}
			if g.isKernels(pid) {
				kernels[pid] = true
				continue
			}
			if err := g.move(pid, commandsGroup); err == nil {
				found = true
			} else if !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("process %d: %w", pid, err)
			}
		}
	}
	return found, nil
}

// stands tells whether all processes of a group, and of those below, are frozen.
func (g *Groups) stands(group string) bool {
	return strings.Contains(g.read(group, "cgroup.events")+"\n", "frozen 1\n")
}

// restless names a process that keeps its group from standing still.
func (g *Groups) restless() string {
	groups, _ := g.others()
	for _, group := range groups {
		if g.stands(group) {
			continue
		}
		told := "something in " + group
		_ = fs.WalkDir(g.root.FS(), group, func(below string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			for _, pid := range g.members(below) {
				name, state := g.status(pid)
				if strings.HasPrefix(state, "D") {
					told = fmt.Sprintf("process %d (%s), which waits for a device or a file system,", pid, name)
					return filepath.SkipAll
				}
			}
			return nil
		})
		return told
	}
	return "something that has just begun"
}

func (g *Groups) read(group, file string) string {
	content, _ := g.root.ReadFile(filepath.Join(group, file))
	return strings.TrimSpace(string(content))
}

func (g *Groups) write(group, file, text string) error {
	return g.root.WriteFile(filepath.Join(group, file), []byte(text), 0o600)
}

func (g *Groups) move(pid int, group string) error {
	return g.write(group, "cgroup.procs", strconv.Itoa(pid))
}

func (g *Groups) members(group string) []int {
	var pids []int
	for _, text := range strings.Fields(g.read(group, "cgroup.procs")) {
		if pid, err := strconv.Atoi(text); err == nil && pid > 0 { // 0: of another namespace
			pids = append(pids, pid)
		}
	}
	return pids
}

// isKernels tells a thread of the kernel's, by its flags; see proc_pid_stat(5).
func (g *Groups) isKernels(pid int) bool {
	const kernelThread = 0x00200000 // PF_KTHREAD
	content, err := g.proc.ReadFile(strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	const flags = 6
	if len(fields) <= flags {
		return false
	}
	number, err := strconv.ParseUint(fields[flags], 10, 64)
	return err == nil && number&kernelThread != 0
}

// status is a process's name and state.
func (g *Groups) status(pid int) (name, state string) {
	content, _ := g.proc.ReadFile(strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "Name":
			name = value
		case "State":
			state = value
		}
	}
	return name, state
}
