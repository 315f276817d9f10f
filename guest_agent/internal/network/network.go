// Package network gives the guest its addresses.
package network

import (
	"fmt"
	"net/netip"
)

// Configuration is the guest's one interface. The gateway may be missing.
type Configuration struct {
	Interface string
	Address   netip.Prefix
	Gateway   netip.Addr
}

// Parse reads the texts that a BootConfig has.
func Parse(name, address, gateway string) (Configuration, error) {
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return Configuration{}, fmt.Errorf("network address: %w", err)
	}
	parsed := Configuration{Interface: name, Address: prefix}
	if gateway != "" {
		if parsed.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return Configuration{}, fmt.Errorf("network gateway: %w", err)
		}
	}
	return parsed, nil
}

// LoopbackUp brings up lo, which gets its addresses from the kernel.
func LoopbackUp() error {
	return withLink("lo", func(routes *route, index int) error { return routes.setUp(index) })
}

// Configure brings the interface up with its address and default route. Doing it again is fine.
func Configure(wanted Configuration) error {
	return withLink(wanted.Interface, func(routes *route, index int) error {
		if err := routes.setUp(index); err != nil {
			return fmt.Errorf("bring it up: %w", err)
		}
		if err := routes.addAddress(index, wanted.Address); err != nil {
			return fmt.Errorf("address %s: %w", wanted.Address, err)
		}
		if !wanted.Gateway.IsValid() {
			return nil
		}
		if err := routes.addDefault(index, wanted.Gateway); err != nil {
			return fmt.Errorf("gateway %s: %w", wanted.Gateway, err)
		}
		return nil
	})
}

func withLink(name string, change func(routes *route, index int) error) error {
	routes, err := openRoute()
	if err != nil {
		return err
	}
	defer routes.close()
	index, err := routes.index(name)
	if err != nil {
		return fmt.Errorf("network interface %s: %w", name, err)
	}
	if err := change(routes, index); err != nil {
		return fmt.Errorf("network interface %s: %w", name, err)
	}
	return nil
}
