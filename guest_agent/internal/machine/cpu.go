package machine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"ingle.dev/guest_agent/internal/agentpb"
)

// tick is the unit of /proc/stat in nanoseconds: USER_HZ is 100 on every architecture there is an agent for.
const tick = 10_000_000

// addCPU sums the time of all processors up; "cpu  user nice system idle iowait irq softirq steal …" in proc(5). The
// guest's share is in user already.
func addCPU(stats *agentpb.StatsResponse) error {
	file, err := os.Open("/proc/stat")
	if err != nil {
		return err
	}
	defer file.Close()
	const idle, iowait, steal = 3, 4, 7
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2+steal || !strings.HasPrefix(fields[0], "cpu") {
			break
		}
		if fields[0] != "cpu" {
			stats.Cpus++
			continue
		}
		for index, text := range fields[1 : 2+steal] {
			ticks, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return fmt.Errorf("/proc/stat: %w", err)
			}
			stats.CpuTotalNanoseconds += ticks * tick
			if index == idle || index == iowait {
				stats.CpuIdleNanoseconds += ticks * tick
			}
		}
	}
	return lines.Err()
}
