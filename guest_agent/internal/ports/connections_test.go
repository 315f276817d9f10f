package ports

import (
	"strings"
	"testing"
)

func TestOnlyConnectionsOfOthersToServersCount(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0A03FC0A:0050 0103FC0A:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0A03FC0A:0050 0103FC0A:C351 06 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0A03FC0A:A000 0103FC0A:0050 01 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: 0100007F:0050 0100007F:C352 01 00000000:00000000 00:00000000 00000000     0        0 5 1
   5: nonsense 0103FC0A:C353 01
`
	if got := countConnections(strings.NewReader(table)); got != 1 {
		t.Errorf("%d", got)
	}
}
