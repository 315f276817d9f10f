// Package ports finds who listens on the machine's network.
package ports

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Limit is how many sockets are told of at most.
const Limit = 1000

// mostLines bounds what is read of a table: it has connections as well, and those may be many.
const mostLines = 200_000

// commandSize is how much of a command line is told.
const commandSize = 512

// Socket is one that takes connections or datagrams from anybody.
type Socket struct {
	UDP     bool
	Address netip.Addr
	Port    uint16
	UID     uint32
	// The process that has it, the first of several; 0 when none is to be seen: the kernel's own.
	PID     int
	Process string
	Command []string
}

// table is one of the files of proc(5), and the state in it that means: for anybody.
type table struct {
	path  string
	udp   bool
	state string
}

var tables = []table{
	{"/proc/net/tcp", false, "0A"}, // TCP_LISTEN
	{"/proc/net/tcp6", false, "0A"},
	{"/proc/net/udp", true, "07"}, // not connected
	{"/proc/net/udp6", true, "07"},
}

// List tells of all of them, by port, and whether there are more than Limit.
func List() ([]Socket, bool, error) {
	found := map[uint64]Socket{} // by inode
	truncated := false
	for _, table := range tables {
		file, err := os.Open(table.path)
		if os.IsNotExist(err) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, false, err
		}
		more, err := table.read(bufio.NewScanner(file), found)
		_ = file.Close()
		if err != nil {
			return nil, false, err
		}
		truncated = truncated || more
	}
	if err := addProcesses(found); err != nil {
		return nil, false, err
	}
	sockets := make([]Socket, 0, len(found))
	for _, socket := range found {
		sockets = append(sockets, socket)
	}
	slices.SortFunc(sockets, compare)
	return sockets, truncated, nil
}

func compare(a, b Socket) int {
	if a.UDP != b.UDP {
		if b.UDP {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Port, b.Port), a.Address.Compare(b.Address), cmp.Compare(a.PID, b.PID))
}

// read adds the table's sockets, and tells whether there was no room for all.
func (t table) read(lines *bufio.Scanner, found map[uint64]Socket) (more bool, err error) {
	lines.Scan() // the headings
	for count := 0; lines.Scan(); count++ {
		if count == mostLines {
			return true, nil
		}
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != t.state {
			continue
		}
		if len(found) == Limit {
			return true, nil
		}
		local, err := parseAddress(fields[1])
		if err != nil {
			return false, fmt.Errorf("%s: %w", t.path, err)
		}
		uid, uidErr := strconv.ParseUint(fields[7], 10, 32)
		inode, inodeErr := strconv.ParseUint(fields[9], 10, 64)
		if uidErr != nil || inodeErr != nil {
			return false, fmt.Errorf("%s: uid %q, inode %q", t.path, fields[7], fields[9])
		}
		found[inode] = Socket{UDP: t.udp, Address: local.Addr(), Port: local.Port(), UID: uint32(uid)}
	}
	return false, lines.Err()
}

// parseAddress reads "0100007F:1F90": the address as 32 bit words in the machine's order, the port as a number.
func parseAddress(text string) (netip.AddrPort, error) {
	words, number, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(number, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", text, err)
	}
	address, err := hex.DecodeString(words)
	if err != nil || len(address)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("address %q", text)
	}
	for at := 0; at < len(address); at += 4 {
		binary.BigEndian.PutUint32(address[at:], binary.NativeEndian.Uint32(address[at:]))
	}
	parsed, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address %q", text)
	}
	return netip.AddrPortFrom(parsed.Unmap(), uint16(port)), nil
}

// addProcesses looks through everybody's descriptors, in the order of their pids, until each socket has an owner.
func addProcesses(found map[uint64]Socket) error {
	pids, err := processes()
	if err != nil {
		return err
	}
	missing := len(found)
	for _, pid := range pids {
		if missing == 0 {
			break
		}
		directory := fmt.Sprintf("/proc/%d", pid)
		names, err := names(directory + "/fd")
		if err != nil {
			continue // it has ended, or is somebody else's
		}
		for _, name := range names {
			target, err := os.Readlink(directory + "/fd/" + name)
			if err != nil {
				continue
			}
			text, isSocket := strings.CutPrefix(target, "socket:[")
			if !isSocket {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
			socket, known := found[inode]
			if err != nil || !known || socket.PID != 0 {
				continue
			}
			socket.PID, socket.Process, socket.Command = pid, processName(directory), commandLine(directory)
			found[inode] = socket
			missing--
		}
	}
	return nil
}

func processes() ([]int, error) {
	entries, err := names("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range entries {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func names(directory string) ([]string, error) {
	file, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Readdirnames(-1)
}

func processName(directory string) string {
	name, _ := os.ReadFile(directory + "/comm")
	return strings.ToValidUTF8(string(bytes.TrimSuffix(name, []byte{'\n'})), "\uFFFD")
}

// commandLine is the beginning of it; what is cut ends in "…".
func commandLine(directory string) []string {
	file, err := os.Open(directory + "/cmdline")
	if err != nil {
		return nil
	}
	defer file.Close()
	buffer := make([]byte, commandSize+1)
	size, _ := file.Read(buffer)
	text, cut := buffer[:size], ""
	if size > commandSize {
		text, cut = buffer[:commandSize], "…"
	}
	text = bytes.TrimRight(text, "\x00")
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.ToValidUTF8(string(text), "\uFFFD")+cut, "\x00")
}
