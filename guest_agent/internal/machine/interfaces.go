package machine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"ingle.dev/guest_agent/internal/agentpb"
)

// mostInterfaces bounds the answer.
const mostInterfaces = 256

// addInterfaces reads lines like "eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs …",
// received first; see proc(5).
func addInterfaces(stats *agentpb.StatsResponse) error {
	file, err := os.Open("/proc/net/dev")
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() && len(stats.Interfaces) < mostInterfaces {
		name, counts, found := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(counts)
		if !found || len(fields) < 16 {
			continue // the headings
		}
		added := &agentpb.InterfaceStats{Name: strings.TrimSpace(name)}
		for index, target := range map[int]*uint64{
			0: &added.ReceivedBytes, 1: &added.ReceivedPackets, 2: &added.ReceiveErrors,
			8: &added.SentBytes, 9: &added.SentPackets, 10: &added.SendErrors,
		} {
			if *target, err = strconv.ParseUint(fields[index], 10, 64); err != nil {
				return fmt.Errorf("/proc/net/dev: %s: %w", added.Name, err)
			}
		}
		stats.Interfaces = append(stats.Interfaces, added)
	}
	return lines.Err()
}
