package network

import (
	"bytes"
	"net"
	"net/netip"
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := Parse("eth0", "10.0.2.15/24", "10.0.2.2", "52:54:00:12:34:56")
	want := Configuration{
		"eth0", netip.MustParsePrefix("10.0.2.15/24"), netip.MustParseAddr("10.0.2.2"), net.HardwareAddr("RT\x00\x124V"),
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Parse("eth0", "fd00::2/64", "", ""); err != nil || got.Gateway.IsValid() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for _, test := range [][3]string{
		{"10.0.2.15", ""}, {"", ""}, {"10.0.2.300/24", ""}, {"10.0.2.15/24", "router"}, {"10.0.2.15/24", "fd00::1"},
		{"0.0.0.0/0", ""}, {"224.0.0.1/8", ""}, {"127.0.0.1/8", ""}, {"::1/128", ""},
		{"10.0.2.15/24", "", "here"}, {"10.0.2.15/24", "", "53:54:00:12:34:56"}, {"10.0.2.15/24", "", "02:00:5e:10:00:00:00:01"},
	} {
		if _, err := Parse("eth0", test[0], test[1], test[2]); err == nil {
			t.Errorf("%q was taken", test)
		}
	}
}

func TestAnInterfaceThatIsNotThereIsNotFound(t *testing.T) {
	for _, name := range []string{"nowhere0", "a-name-longer-than-any-interface"} {
		if err := Check(name); err != (NotFoundError{name}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check("lo"); err != nil {
		t.Error(err)
	}
}

func TestTheLoopbackHasItsAddress(t *testing.T) {
	routes, err := openRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer routes.close()
	index, err := routes.index("lo")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := routes.addresses(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range addresses {
		if one.prefix == netip.MustParsePrefix("127.0.0.1/8") {
			return
		}
	}
	t.Errorf("%+v", addresses)
}

func TestAttributesArePaddedButNotTheirLength(t *testing.T) {
	got := attribute(nil, 7, []byte{1, 2, 3})
	if len(got) != 8 || got[0]|got[1] != 7 || got[7] != 0 {
		t.Errorf("% x", got)
	}
	read := map[uint16]string{}
	eachAttribute(append(attribute(got, 8, []byte("abcd")), 9, 9), func(kind uint16, value []byte) {
		read[kind] = string(value)
	})
	if len(read) != 2 || read[7] != "\x01\x02\x03" || read[8] != "abcd" {
		t.Errorf("%q", read)
	}
}

func TestAnnouncements(t *testing.T) {
	hardware := net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	arp := []byte{
		0, 1, 8, 0, 6, 4, 0, 1,
		0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15,
		0, 0, 0, 0, 0, 0, 10, 0, 2, 15,
	}
	if got := announcement(hardware, netip.MustParseAddr("10.0.2.15")); !bytes.Equal(got, arp) {
		t.Errorf("% x", got)
	}
	address := netip.MustParseAddr("fd00::2")
	neighbour := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, address.AsSlice()...)
	neighbour = append(neighbour, 2, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56)
	if got := advertisement(hardware, address); !bytes.Equal(got, neighbour) {
		t.Errorf("% x", got)
	}
}
