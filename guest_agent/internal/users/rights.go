package users

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Do runs work with the account's rights to files: the kernel judges, not we. The goroutine's thread alone changes, in
// its file system ids (setfsuid(2)), which also takes the capabilities that override permissions; all others stay.
func (a Account) Do(work func() error) error {
	if a.isOurs() {
		return work()
	}
	own, err := os.Getgroups()
	if err != nil {
		return err
	}
	ownGroups := make([]uint32, len(own))
	for index, group := range own {
		ownGroups[index] = uint32(group)
	}
	runtime.LockOSThread()
	// A thread whose rights can't be restored stays locked, and ends with its goroutine.
	defer func() {
		if assume(os.Geteuid(), os.Getegid(), ownGroups) == nil {
			runtime.UnlockOSThread()
		}
	}()
	if err := assume(int(a.UID), int(a.GID), a.Groups); err != nil {
		return err
	}
	return work()
}

// assume changes this thread only; Go's own wrapper of setgroups changes all.
func assume(uid, gid int, groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return fmt.Errorf("setgroups: %w", errno)
	}
	// Both calls tell only what was before: asking with -1 shows what is.
	_, _ = unix.SetfsgidRetGid(gid)
	_, _ = unix.SetfsuidRetUid(uid)
	nowGID, _ := unix.SetfsgidRetGid(-1)
	nowUID, _ := unix.SetfsuidRetUid(-1)
	if nowUID != uid || nowGID != gid {
		return fmt.Errorf("setfsuid %d, setfsgid %d: %w", uid, gid, unix.EPERM)
	}
	return nil
}

func (a Account) isOurs() bool { return int(a.UID) == os.Geteuid() }
