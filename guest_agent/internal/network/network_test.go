package network

import (
	"net/netip"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := Parse("eth0", "10.0.2.15/24", "10.0.2.2")
	want := Configuration{"eth0", netip.MustParsePrefix("10.0.2.15/24"), netip.MustParseAddr("10.0.2.2")}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Parse("eth0", "fd00::2/64", ""); err != nil || got.Gateway.IsValid() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for _, test := range [][2]string{{"10.0.2.15", ""}, {"", ""}, {"10.0.2.300/24", ""}, {"10.0.2.15/24", "router"}} {
		if _, err := Parse("eth0", test[0], test[1]); err == nil {
			t.Errorf("%q via %q was taken", test[0], test[1])
		}
	}
}

func TestAttributesArePaddedButNotTheirLength(t *testing.T) {
	got := attribute(nil, 7, []byte{1, 2, 3})
	if len(got) != 8 || got[0]|got[1] != 7 || got[7] != 0 {
		t.Errorf("% x", got)
	}
}
