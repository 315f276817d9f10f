// Package network gives the guest its addresses.
package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Configuration is one address of an interface, and perhaps the way out through it.
type Configuration struct {
	Interface string
	Address   netip.Prefix
	Gateway   netip.Addr
	// MAC is what the interface is to have; empty: what it has.
	MAC net.HardwareAddr
}

// Parse reads the texts that a Network message has.
func Parse(name, address, gateway, mac string) (Configuration, error) {
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return Configuration{}, fmt.Errorf("network address: %w", err)
	}
	if host := prefix.Addr(); host.IsUnspecified() || host.IsMulticast() || host.IsLoopback() {
		return Configuration{}, fmt.Errorf("network address %s: no interface can have it", prefix)
	}
	parsed := Configuration{Interface: name, Address: prefix}
	if gateway != "" {
		if parsed.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return Configuration{}, fmt.Errorf("network gateway: %w", err)
		}
		if parsed.Gateway.Is4() != prefix.Addr().Is4() {
			return Configuration{}, fmt.Errorf("network gateway %s: not of the same family as %s", gateway, address)
		}
	}
	if mac != "" {
		parsed.MAC, err = net.ParseMAC(mac)
		if err != nil || len(parsed.MAC) != 6 || parsed.MAC[0]&1 != 0 {
			return Configuration{}, fmt.Errorf("hardware address %.40q: none that an Ethernet interface can have", mac)
		}
	}
	return parsed, nil
}

// NotFoundError names an interface that the guest doesn't have.
type NotFoundError struct{ Interface string }

func (e NotFoundError) Error() string { return fmt.Sprintf("no network interface %q", e.Interface) }

// Check says whether the guest has the interface.
func Check(name string) error {
	return withLink(name, func(*route, int) error { return nil })
}

// LoopbackUp brings up lo, which gets its addresses from the kernel.
func LoopbackUp() error {
	return withLink("lo", func(routes *route, index int) error { return routes.setUp(index) })
}

// HasIPv6 says whether the kernel has it: it may be built without, or told to do without.
func HasIPv6() bool {
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(socket)
	return true
}

// Configure brings interfaces up with exactly these addresses and default routes: whatever else they had goes, but for
// the link-local addresses that the kernel itself gives. Interfaces that aren't named are left alone. Doing it again
// changes nothing.
func Configure(wanted []Configuration) error {
	var done []string
	for _, one := range wanted {
		if slices.Contains(done, one.Interface) {
			continue
		}
		done = append(done, one.Interface)
		var same []Configuration
		for _, other := range wanted {
			if other.Interface == one.Interface {
				same = append(same, other)
			}
		}
		err := withLink(one.Interface, func(routes *route, index int) error { return routes.configure(index, same) })
		if err != nil {
			return err
		}
	}
	return nil
}

// configure removes what is not wanted before it adds what is: an address in the subnet of another one would be
// secondary to it, and go with it.
func (r *route) configure(index int, wanted []Configuration) error {
	for _, one := range wanted {
		if len(one.MAC) > 0 {
			if err := r.becomeHardware(index, one.MAC); err != nil {
				return fmt.Errorf("hardware address %s: %w", one.MAC, err)
			}
		}
	}
	if err := r.setUp(index); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	present, err := r.addresses(index)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var prefixes []netip.Prefix
	for _, one := range wanted {
		prefixes = append(prefixes, one.Address)
	}
	for _, one := range present {
		if one.scope == unix.RT_SCOPE_LINK || slices.Contains(prefixes, one.prefix) {
			continue
		}
		// EADDRNOTAVAIL: it went with the one it was secondary to.
		if err := r.removeAddress(index, one.prefix); err != nil && err != unix.EADDRNOTAVAIL {
			return fmt.Errorf("remove address %s: %w", one.prefix, err)
		}
	}
	for _, one := range wanted {
		if err := r.addAddress(index, one.Address); err != nil {
			return fmt.Errorf("address %s: %w", one.Address, err)
		}
	}
	return r.setDefaults(index, wanted)
}

// becomeHardware gives the interface another hardware address. It is down meanwhile: so the kernel takes back the
// link-local address that it has made of the former one, and makes another.
func (r *route) becomeHardware(index int, mac net.HardwareAddr) error {
	present, err := net.InterfaceByIndex(index)
	if err != nil || bytes.Equal(present.HardwareAddr, mac) {
		return err
	}
	if err := r.setDown(index); err != nil {
		return err
	}
	return r.setMAC(index, mac)
}

// setDefaults makes the gateways the only default routes through the interface.
func (r *route) setDefaults(index int, wanted []Configuration) error {
	present, err := r.defaults(index)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var gateways []netip.Addr
	for _, one := range wanted {
		if one.Gateway.IsValid() && !slices.Contains(gateways, one.Gateway) {
			gateways = append(gateways, one.Gateway)
		}
	}
	for _, gateway := range present {
		if slices.Contains(gateways, gateway) {
			continue
		}
		// ESRCH: it went with the address that led to it.
		if err := r.removeDefault(index, gateway); err != nil && err != unix.ESRCH {
			return fmt.Errorf("remove gateway %s: %w", gateway, err)
		}
	}
	for _, gateway := range gateways {
		if slices.Contains(present, gateway) {
			continue
		}
		if err := r.addDefault(index, gateway); err != nil {
			return fmt.Errorf("gateway %s: %w", gateway, err)
		}
	}
	return nil
}

func withLink(name string, change func(routes *route, index int) error) error {
	routes, err := openRoute()
	if err != nil {
		return err
	}
	defer routes.close()
	index, err := routes.index(name)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) { // EINVAL: longer than a name can be
		return NotFoundError{name}
	}
	if err != nil {
		return fmt.Errorf("network interface %s: %w", name, err)
	}
	if err := change(routes, index); err != nil {
		return fmt.Errorf("network interface %s: %w", name, err)
	}
	return nil
}
