package network

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const inside = "INGLE_TEST_INSIDE"

// inNamespace runs the test that calls it in a network namespace of its own, as root there; it answers whether this is
// already inside.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), inside+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if said, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v (a network namespace takes root, or user namespaces)\n%s", err, said)
	}
	return false
}

// tap makes an Ethernet interface whose other end is the file.
func tap(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func addressesOf(t *testing.T, name string) (addresses, gateways []string) {
	t.Helper()
	err := withLink(name, func(routes *route, index int) error {
		present, err := routes.addresses(index)
		if err != nil {
			return err
		}
		for _, one := range present {
			if one.scope != unix.RT_SCOPE_LINK {
				addresses = append(addresses, one.prefix.String())
			}
		}
		through, err := routes.defaults(index)
		for _, gateway := range through {
			gateways = append(gateways, gateway.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addresses)
	slices.Sort(gateways)
	return addresses, gateways
}

func TestAnInterfaceGetsWhatIsSaidAndLosesAllElse(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	tap(t, "eth0")
	tap(t, "eth1")
	entry := func(name, address, gateway string) Configuration {
		parsed, err := Parse(name, address, gateway, "")
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	bystander := entry("eth1", "192.0.2.7/24", "192.0.2.1")
	if err := Configure([]Configuration{bystander}); err != nil {
		t.Fatal(err)
	}
	v4 := entry("eth0", "10.0.2.15/24", "10.0.2.2")
	v6 := entry("eth0", "fd00::5/64", "fd00::1")
	for _, step := range []struct {
		wanted              []Configuration
		addresses, gateways []string
	}{
		{[]Configuration{v4}, []string{"10.0.2.15/24"}, []string{"10.0.2.2"}},
		{[]Configuration{v4}, []string{"10.0.2.15/24"}, []string{"10.0.2.2"}},
		{[]Configuration{v4, v6}, []string{"10.0.2.15/24", "fd00::5/64"}, []string{"10.0.2.2", "fd00::1"}},
		// Others in the same subnet, one of which was there: it must not go with the one it was secondary to.
		{[]Configuration{entry("eth0", "10.0.2.16/24", "10.0.2.2"), v4}, []string{"10.0.2.15/24", "10.0.2.16/24"}, []string{"10.0.2.2"}},
		{[]Configuration{entry("eth0", "10.0.2.16/24", "10.0.2.3")}, []string{"10.0.2.16/24"}, []string{"10.0.2.3"}},
		{[]Configuration{entry("eth0", "10.0.2.16/16", "")}, []string{"10.0.2.16/16"}, nil},
		{[]Configuration{v6}, []string{"fd00::5/64"}, []string{"fd00::1"}},
	} {
		if err := Configure(step.wanted); err != nil {
			t.Fatalf("%v: %v", step.wanted, err)
		}
		addresses, gateways := addressesOf(t, "eth0")
		if !reflect.DeepEqual(addresses, step.addresses) || !reflect.DeepEqual(gateways, step.gateways) {
			t.Errorf("%v: %v via %v", step.wanted, addresses, gateways)
		}
	}
	addresses, gateways := addressesOf(t, "eth1")
	if !reflect.DeepEqual(addresses, []string{"192.0.2.7/24"}) || !reflect.DeepEqual(gateways, []string{"192.0.2.1"}) {
		t.Errorf("the other interface: %v via %v", addresses, gateways)
	}
}

func TestNeighboursAreTold(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	wire := tap(t, "eth0")
	v4, v6 := netip.MustParsePrefix("10.0.2.15/24"), netip.MustParsePrefix("fd00::5/64")
	if err := Configure([]Configuration{{Interface: "eth0", Address: v4}, {Interface: "eth0", Address: v6}}); err != nil {
		t.Fatal(err)
	}
	told, err := Announce()
	if err != nil || !slices.Contains(told, v4.Addr()) || !slices.Contains(told, v6.Addr()) {
		t.Fatalf("%v, %v", told, err)
	}
	var hardware []byte
	wanted := map[string]func(frame []byte) bool{
		"ARP announcement": func(frame []byte) bool {
			return bytes.Equal(frame[:6], []byte{255, 255, 255, 255, 255, 255}) && bytes.Equal(frame[12:14], []byte{8, 6}) &&
				bytes.Equal(frame[14:42], announcement(hardware, v4.Addr()))
		},
		"neighbour advertisement": func(frame []byte) bool {
			const header, hopLimit, checksum = 14, 14 + 7, 14 + 40 + 2
			if len(frame) != header+40+32 || frame[hopLimit] != 255 || frame[header+40] != 136 {
				return false
			}
			message := append([]byte{}, frame[header+40:]...)
			summed := !bytes.Equal(frame[checksum:checksum+2], []byte{0, 0})
			message[2], message[3] = 0, 0
			return summed && bytes.Equal(message, advertisement(hardware, v6.Addr()))
		},
	}
	if err := wire.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for len(wanted) > 0 {
		frame := make([]byte, 2048)
		size, err := wire.Read(frame)
		if err != nil {
			t.Fatalf("%v; not seen: %v", err, reflect.ValueOf(wanted).MapKeys())
		}
		if size < 42 {
			continue
		}
		hardware = frame[6:12]
		for name, matches := range wanted {
			if matches(frame[:size]) {
				delete(wanted, name)
			}
		}
	}
	runtime.KeepAlive(wire)
}

func TestAnInterfaceGetsAnotherHardwareAddressAndALinkLocalOneOfIt(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	tap(t, "eth0")
	wanted := func(mac string) []Configuration {
		v4, err := Parse("eth0", "10.0.2.15/24", "10.0.2.2", mac)
		if err != nil {
			t.Fatal(err)
		}
		v6, err := Parse("eth0", "fd00::5/64", "fd00::1", "")
		if err != nil {
			t.Fatal(err)
		}
		return []Configuration{v4, v6}
	}
	linkLocal := func() (found []string) {
		err := withLink("eth0", func(routes *route, index int) error {
			present, err := routes.addresses(index)
			for _, one := range present {
				if one.scope == unix.RT_SCOPE_LINK {
					found = append(found, one.prefix.String())
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, test := range []struct{ mac, linkLocal string }{
		{"52:54:00:00:00:01", "fe80::5054:ff:fe00:1/64"},
		{"52:54:00:00:00:02", "fe80::5054:ff:fe00:2/64"},
		{"52:54:00:00:00:02", "fe80::5054:ff:fe00:2/64"},
	} {
		if err := Configure(wanted(test.mac)); err != nil {
			t.Fatal(err)
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil || link.HardwareAddr.String() != test.mac || link.Flags&net.FlagUp == 0 {
			t.Errorf("%v, %v", link, err)
		}
		if got := linkLocal(); !slices.Equal(got, []string{test.linkLocal}) {
			t.Errorf("%s: %v", test.mac, got)
		}
		addresses, gateways := addressesOf(t, "eth0")
		if !slices.Equal(addresses, []string{"10.0.2.15/24", "fd00::5/64"}) || !slices.Equal(gateways, []string{"10.0.2.2", "fd00::1"}) {
			t.Errorf("%v via %v", addresses, gateways)
		}
	}
}
