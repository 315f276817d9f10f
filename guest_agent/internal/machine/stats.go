// Package machine tells about the machine as a whole, and ends it.
package machine

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
)

// BootID is the kernel's random name of this boot.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(text)), err
}

// Uptime is the time since the kernel started, suspended time included.
func Uptime() (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return time.Duration(now.Nano()), err
}

// Stats gathers load, processors, memory, the root file system, the network and the number of processes.
func Stats() (*agentpb.StatsResponse, error) {
	stats := &agentpb.StatsResponse{}
	uptime, err := Uptime()
	if err != nil {
		return nil, err
	}
	stats.UptimeMilliseconds = uint64(uptime.Milliseconds())
	for _, add := range []func(*agentpb.StatsResponse) error{addLoad, addCPU, addMemory, addDisk, addInterfaces, addProcesses} {
		if err := add(stats); err != nil {
			return nil, err
		}
	}
	return stats, nil
}

func addLoad(stats *agentpb.StatsResponse) error {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	_, err = fmt.Sscan(string(text), &stats.Load_1M, &stats.Load_5M, &stats.Load_15M)
	return err
}

// addMemory reads lines like "MemAvailable:  123 kB"; see proc(5).
func addMemory(stats *agentpb.StatsResponse) error {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	for _, line := range bytes.Split(text, []byte{'\n'}) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		var target *uint64
		switch string(fields[0]) {
		case "MemTotal:":
			target = &stats.MemoryTotalBytes
		case "MemAvailable:":
			target = &stats.MemoryAvailableBytes
		default:
			continue
		}
		kibibytes, err := strconv.ParseUint(string(fields[1]), 10, 54)
		if err != nil {
			return fmt.Errorf("/proc/meminfo: %w", err)
		}
		*target = kibibytes * 1024
	}
	return nil
}

func addDisk(stats *agentpb.StatsResponse) error {
	var root unix.Statfs_t
	if err := unix.Statfs("/", &root); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	stats.DiskTotalBytes = root.Blocks * uint64(root.Frsize)
	stats.DiskAvailableBytes = root.Bavail * uint64(root.Frsize)
	return nil
}

// addProcesses counts what ps would list.
func addProcesses(stats *agentpb.StatsResponse) error {
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	for _, name := range names {
		if _, err := strconv.Atoi(name); err == nil {
			stats.Processes++
		}
	}
	return err
}
