package groups

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hierarchy is a directory with the files that the kernel would make; what is frozen stands still at once.
func hierarchy(t *testing.T, others ...string) *Groups {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g, err := prepare(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range append(others, commandsGroup, hooksGroup) {
		if err := g.root.MkdirAll(group, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, g, group, freezeFile, "0")
		put(t, g, group, "cgroup.events", "populated 1\nfrozen 1\n")
	}
	return g
}

func put(t *testing.T, g *Groups, group, file, text string) {
	t.Helper()
	if err := g.write(group, file, text); err != nil {
		t.Fatal(err)
	}
}

func frozen(g *Groups, groups ...string) (found []string) {
	for _, group := range groups {
		if g.read(group, freezeFile) == "1" {
			found = append(found, group)
		}
	}
	return found
}

var all = []string{commandsGroup, hooksGroup, "system.slice", "paused", ours + "/later", agentGroup + "/stray"}

func TestAllIsFrozenButTheAgentAndThawsAsItWas(t *testing.T) {
	g := hierarchy(t, all[2:]...)
	put(t, g, "paused", freezeFile, "1") // by somebody in the guest
	if g.Frozen() {
		t.Error("it is frozen from the beginning")
	}
	if err := g.Freeze(time.Second); err != nil {
		t.Fatal(err)
	}
	if got := frozen(g, all...); !slices.Equal(got, all) || !g.Frozen() {
		t.Errorf("only %v", got)
	}
	for _, group := range []string{"", ours, agentGroup} {
		if _, err := g.root.Stat(filepath.Join(group, freezeFile)); err == nil {
			t.Errorf("%q is to be frozen, which has the agent", group)
		}
	}
	if err := g.ThawHooks(); err != nil {
		t.Fatal(err)
	}
	if got := frozen(g, commandsGroup, hooksGroup); !slices.Equal(got, []string{commandsGroup}) {
		t.Errorf("for a hook %v are frozen", got)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	if got := frozen(g, all...); !slices.Equal(got, []string{"paused"}) {
		t.Errorf("%v are frozen still", got)
	}
}

func TestAnAgentThatComesBackThawsWhatAnotherHasFrozen(t *testing.T) {
	g := hierarchy(t, "system.slice")
	if err := g.Freeze(time.Second); err != nil {
		t.Fatal(err)
	}
	another, err := prepare(g.root)
	if err != nil || !another.Frozen() {
		t.Fatalf("it does not see it: %v", err)
	}
	if err := another.Thaw(); err != nil {
		t.Fatal(err)
	}
	if got := frozen(g, all[:3]...); got != nil {
		t.Errorf("%v are frozen still", got)
	}
}

func TestWhatWouldNotStandStillIsNamedAndAllGoesOn(t *testing.T) {
	g := hierarchy(t, "system.slice", "system.slice/web.service")
	put(t, g, "system.slice", "cgroup.events", "populated 1\nfrozen 0\n")
	err := g.Freeze(20 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "something in system.slice would not stand still") {
		t.Error(err)
	}
	if got := frozen(g, all[:3]...); got != nil {
		t.Errorf("%v are frozen still", got)
	}
}

// The kernel takes a process out of where it was; here it stays, and so is seen anew each time.
func TestAStrayIsMovedToTheCommands(t *testing.T) {
	g := hierarchy(t)
	stray := exec.Command("sleep", "1000")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stray.Process.Kill()
		_ = stray.Wait()
	}()
	put(t, g, "", "cgroup.procs", strconv.Itoa(stray.Process.Pid)+"\n2\n")
	moved, err := g.gather(map[int]bool{2: true}) // 2: the kernel's
	if err != nil || !moved {
		t.Fatalf("%v, %v", moved, err)
	}
	if got := g.members(commandsGroup); !slices.Equal(got, []int{stray.Process.Pid}) {
		t.Errorf("%v", got)
	}
	if got := g.members(agentGroup); !slices.Equal(got, []int{os.Getpid()}) {
		t.Errorf("the agent's group has %v", got)
	}
}

func TestWithoutControlGroupsThereIsNothingToPrepare(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := root.WriteFile(ours, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var failed *os.PathError
	if _, err := prepare(root); !errors.As(err, &failed) {
		t.Error(err)
	}
}

func TestAThreadOfTheKernelsIsToldFromAProcess(t *testing.T) {
	g := hierarchy(t)
	if g.isKernels(os.Getpid()) || g.isKernels(1<<30) {
		t.Error("a process is taken for the kernel's")
	}
	if name, state := g.status(os.Getpid()); name == "" || !strings.ContainsAny(state[:1], "RSD") {
		t.Errorf("%q %q", name, state)
	}
}
