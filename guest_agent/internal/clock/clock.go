// Package clock sets the guest's clock, and knows whether somebody else has.
package clock

import (
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

var (
	mutex  sync.Mutex
	timer  = -1 // a timer that the kernel cancels when the clock is set
	others bool
)

// Set sets it.
func Set(unixNanoseconds int64) error {
	mutex.Lock()
	defer mutex.Unlock()
	look()
	spec := unix.NsecToTimespec(unixNanoseconds)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &spec); err != nil {
		return os.NewSyscallError("clock_settime", err)
	}
	arm() // that was us
	return nil
}

// SetByOthers tells whether anybody else has set it since this was first asked, or since the first Set. A clock that is
// only made to go faster or slower was not set.
func SetByOthers() bool {
	mutex.Lock()
	defer mutex.Unlock()
	look()
	return others
}

func look() {
	if timer < 0 {
		arm()
		return
	}
	expirations := make([]byte, 8)
	if _, err := unix.Read(timer, expirations); err == unix.ECANCELED {
		others = true
	}
}

// arm starts the timer anew; where that can't be done nobody is seen.
func arm() {
	if timer < 0 {
		timer, _ = unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32 * 4}}
	_ = unix.TimerfdSettime(timer, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
}
