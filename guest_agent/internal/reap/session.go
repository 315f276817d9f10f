package reap

import (
	"os"
	"strconv"
	"strings"
)

// sessionMembers lists the processes of a session, by field 6 of /proc/PID/stat; see proc_pid_stat(5).
func sessionMembers(session int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var members []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		// The name, field 2, is in parentheses and may hold anything, also those.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		if fields := strings.Fields(rest); len(fields) > 3 && fields[3] == strconv.Itoa(session) {
			members = append(members, pid)
		}
	}
	return members
}
