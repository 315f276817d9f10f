package reap

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// There is one reaper a process, as in the agent.
var reaper = New()

func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, script string) *Child {
	t.Helper()
	child, err := reaper.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func ended(child *Child) syscall.WaitStatus {
	<-child.Done()
	return child.Status()
}

func gone(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestExitCodesAreNeverLostNorMixedUp(t *testing.T) {
	const commands, atOnce = 2000, 16
	var workers sync.WaitGroup
	numbers := make(chan int)
	for range atOnce {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for n := range numbers {
				// Every other one leaves an orphan that ends at about the same time, with another code.
				script := "exit " + strconv.Itoa(n%200)
				if n%2 == 0 {
					script = "(exit 255) & " + script
				}
				child, err := reaper.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{})
				if err != nil {
					t.Error(err)
					continue
				}
				if status := ended(child); status.ExitStatus() != n%200 {
					t.Errorf("command %d: %v", n, status)
				}
			}
		}()
	}
	for n := range commands {
		numbers <- n
	}
	close(numbers)
	workers.Wait()
	if !reaper.WaitNone(20 * time.Second) {
		t.Error("orphans are left")
	}
}

func TestAProgramThatCannotStartIsNobodysChild(t *testing.T) {
	for range 100 {
		if _, err := reaper.Start("/no/such/program", []string{"x"}, &syscall.ProcAttr{}); err != unix.ENOENT {
			t.Fatal(err)
		}
	}
	if !reaper.WaitNone(20 * time.Second) {
		t.Error("zombies are left")
	}
}

func TestProgramsThatStartAndThatCannotAreToldApartSideBySide(t *testing.T) {
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for range 100 {
				if worker%2 == 0 {
					if _, err := reaper.Start("/no/such/program", []string{"x"}, &syscall.ProcAttr{}); err != unix.ENOENT {
						t.Errorf("%v", err)
					}
					continue
				}
				child, err := reaper.Start("/bin/sh", []string{"sh", "-c", "exit 7"}, &syscall.ProcAttr{})
				if err != nil {
					t.Error(err)
				} else if status := ended(child); status.ExitStatus() != 7 {
					t.Errorf("%v", status)
				}
			}
		}()
	}
	workers.Wait()
	if !reaper.WaitNone(20 * time.Second) {
		t.Error("zombies are left")
	}
}

func TestDeathBySignalIsToldAsSuch(t *testing.T) {
	if status := ended(start(t, "kill -KILL $$")); !status.Signaled() || status.Signal() != unix.SIGKILL {
		t.Errorf("%v", status)
	}
}

func TestASignalReachesTheGroup(t *testing.T) {
	child := start(t, "sleep 1000 & wait")
	if err := child.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := ended(child); status.Signal() != unix.SIGTERM {
		t.Errorf("%v", status)
	}
	if !reaper.WaitNone(20 * time.Second) {
		t.Error("the group is not gone")
	}
}

func TestASignalAfterTheEndGoesNowhere(t *testing.T) {
	child := start(t, "exit 0")
	ended(child)
	if err := child.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if child.Condemn() {
		t.Error("condemned what had ended")
	}
}

func TestWhatIsToFollowTheEndFollowsItOnceAlsoWhenItIsPast(t *testing.T) {
	for _, past := range []bool{false, true} {
		child := start(t, "read line")
		followed := make(chan syscall.WaitStatus, 2)
		if past {
			ended(child)
		}
		child.AfterExit(func() { followed <- child.Status() })
		if status := <-followed; status.ExitStatus() != 1 {
			t.Errorf("past %v: %v", past, status)
		}
		if len(followed) > 0 {
			t.Error("twice")
		}
	}
}

func TestACondemnedGroupEndsWithItsLeader(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	script := "sh -c 'trap : TERM HUP; echo $$; while :; do sleep 0.01; done' & wait"
	child, err := reaper.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Files: []uintptr{0, writer.Fd(), 2},
	})
	writer.Close()
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	size, err := reader.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	deaf, err := strconv.Atoi(strings.TrimSpace(string(line[:size])))
	if err != nil {
		t.Fatal(err)
	}
	if !child.Condemn() || !child.Condemn() {
		t.Error("a running child was taken for an ended one")
	}
	if status := ended(child); status.Signal() != unix.SIGTERM {
		t.Errorf("%v", status)
	}
	eventually(t, "the child that ignores SIGTERM is gone", func() bool { return gone(deaf) })
}

func TestOrphansAreReaped(t *testing.T) {
	if status := ended(start(t, "for i in 1 2 3 4 5; do (sleep 0.01) & done; exit 3")); status.ExitStatus() != 3 {
		t.Errorf("%v", status)
	}
	if !reaper.WaitNone(20 * time.Second) {
		t.Error("orphans are left")
	}
}

// The kernel's own helpers, and what enters a guest's namespaces, leave PID 1 orphans that none of its children had.
func TestAnOrphanThatComesWhileThereIsNoChildIsReaped(t *testing.T) {
	if !reaper.WaitNone(20 * time.Second) {
		t.Fatal("orphans are left")
	}
	for range 3 {
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "exit 3"}, &syscall.ProcAttr{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "an orphan is reaped", func() bool { return gone(pid) })
	}
}

func TestWhatWantsASignalOfItsOwnGetsItFirst(t *testing.T) {
	directory := t.TempDir()
	said := filepath.Join(directory, "said")
	begin := func(name, script string) *Child {
		ready := filepath.Join(directory, name)
		child := start(t, script+"; touch "+ready+"; while :; do sleep 0.01; done")
		eventually(t, name+" is ready", func() bool { _, err := os.Stat(ready); return err == nil })
		return child
	}
	wish := begin("wish", "trap 'echo quit >"+said+"; exit 7' QUIT; trap '' TERM")
	wish.StopWith(unix.SIGQUIT)
	deaf := begin("deaf", "trap '' QUIT")
	deaf.StopWith(unix.SIGQUIT)
	other := begin("other", ":")
	reaper.StopFirst(200 * time.Millisecond)
	eventually(t, "it heard", func() bool { return gone(wish.Pid) })
	if text, err := os.ReadFile(said); err != nil || string(text) != "quit\n" {
		t.Errorf("it said %q, %v", text, err)
	}
	if status := ended(wish); status.ExitStatus() != 7 {
		t.Errorf("it ended with %v", status)
	}
	for _, child := range []*Child{deaf, other} {
		if !child.Condemn() {
			t.Error("one that had no such wish, or did not hear, has ended")
		}
		ended(child)
	}
}

func TestTheProcessorTimeOfAChildIsKnownWithThatOfItsOwn(t *testing.T) {
	child := start(t, "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'")
	ended(child)
	if used := child.CPUTime(); used <= 0 || used > time.Minute {
		t.Errorf("it took %s", used)
	}
}
