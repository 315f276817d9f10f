// Package configure tells a guest about itself: when it comes up, and when it wakes as another one or elsewhere.
package configure

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/clock"
	"ingle.dev/guest_agent/internal/entropy"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/identity"
	"ingle.dev/guest_agent/internal/network"
	"ingle.dev/guest_agent/internal/sshkeys"
	"ingle.dev/guest_agent/internal/users"
)

const (
	mostEntropy = 4096
	mostKeys    = 1000

	// latest is the beginning of 2200; the kernel's own limit is some years later.
	latest = 7258118400 * int64(time.Second)
)

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Plan is a request that can be done.
type Plan struct {
	request   *agentpb.ConfigureRequest
	addresses []network.Configuration
	accounts  []users.Account
}

// Check reads a request and looks up what it names. Nothing is changed; errors are *failure.Error.
func Check(request *agentpb.ConfigureRequest) (*Plan, error) {
	plan := &Plan{request: request}
	if size := len(request.Entropy); size > mostEntropy {
		return nil, refuse("entropy of %d bytes: at most %d is allowed", size, mostEntropy)
	}
	if setting := request.Clock; setting != nil && (setting.UnixNanoseconds <= 0 || setting.UnixNanoseconds > latest) {
		return nil, refuse("clock %d ns: a time from 1970 to 2200 is allowed", setting.UnixNanoseconds)
	}
	if request.Hostname != "" && !label.MatchString(request.Hostname) {
		return nil, refuse("hostname %.80q: 1 to 63 of a-z, 0-9 and '-', not at either end, is allowed", request.Hostname)
	}
	for _, check := range []func() error{plan.checkNetworks, plan.checkKeys} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

func (p *Plan) checkNetworks() error {
	for _, wanted := range p.request.Networks {
		parsed, err := network.Parse(wanted.Interface, wanted.Address, wanted.Gateway)
		if err != nil {
			return refuse("%v", err)
		}
		if parsed.Interface == "lo" {
			return refuse("network interface lo: its addresses are the kernel's")
		}
		for _, server := range wanted.Nameservers {
			if _, err := netip.ParseAddr(server); err != nil {
				return refuse("nameserver: %v", err)
			}
		}
		err = network.Check(parsed.Interface)
		var notFound network.NotFoundError
		if errors.As(err, &notFound) {
			return failure.New(agentpb.ErrorCode_ERROR_CODE_INTERFACE_NOT_FOUND, "%s in the guest", notFound.Error())
		}
		if err != nil {
			return err
		}
		p.addresses = append(p.addresses, parsed)
	}
	return nil
}

func (p *Plan) checkKeys() error {
	for _, wanted := range p.request.SshKeys {
		if count := len(wanted.Keys); count > mostKeys {
			return refuse("%d SSH keys: at most %d are allowed", count, mostKeys)
		}
		for _, key := range wanted.Keys {
			if err := sshkeys.Check(key); err != nil {
				return refuse("%v", err)
			}
		}
		account, err := users.System.Lookup(wanted.User)
		var notFound users.NotFoundError
		if errors.As(err, &notFound) {
			return failure.New(agentpb.ErrorCode_ERROR_CODE_USER_NOT_FOUND, "%s", notFound.Error())
		}
		if err != nil {
			return err
		}
		p.accounts = append(p.accounts, account)
	}
	return nil
}

// Apply does it, in the order that the contract says.
func (p *Plan) Apply() (*agentpb.ConfigureResponse, error) {
	response := &agentpb.ConfigureResponse{}
	for _, apply := range []func(*agentpb.ConfigureResponse) error{
		func(*agentpb.ConfigureResponse) error { return entropy.Credit(p.request.Entropy) },
		p.setClock,
		p.setNames,
		func(*agentpb.ConfigureResponse) error { return network.Configure(p.addresses) },
		p.announce,
		p.installKeys,
	} {
		if err := apply(response); err != nil {
			return nil, err
		}
	}
	return response, nil
}

func (p *Plan) setClock(response *agentpb.ConfigureResponse) error {
	if p.request.Clock == nil {
		return nil
	}
	wanted := time.Unix(0, p.request.Clock.UnixNanoseconds)
	offset := time.Now().Round(0).Sub(wanted) // Round: the wall clock, not the monotonic one
	ahead := offset.Nanoseconds()
	response.ClockOffsetNanoseconds = &ahead
	theirs := clock.SetByOthers() // asked each time, since it looks from the first time on
	if uint64(offset.Abs()) <= p.request.Clock.ToleranceNanoseconds || (theirs && p.request.Clock.UnlessSetByGuest) {
		return nil
	}
	if err := clock.Set(p.request.Clock.UnixNanoseconds); err != nil {
		return err
	}
	response.ClockStepped = true
	return nil
}

// setNames follows a hostname, an address, or both, since /etc/hosts has them on one line.
func (p *Plan) setNames(*agentpb.ConfigureResponse) error {
	address := ""
	if len(p.addresses) > 0 {
		address = p.addresses[0].Address.Addr().String()
	}
	if p.request.Hostname != "" || address != "" {
		if err := identity.Change(p.request.Hostname, address); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
	}
	var servers []string
	for _, wanted := range p.request.Networks {
		servers = append(servers, wanted.Nameservers...)
	}
	return identity.UseNameservers(servers)
}

func (p *Plan) announce(response *agentpb.ConfigureResponse) error {
	if !p.request.Announce {
		return nil
	}
	told, err := network.Announce()
	for _, address := range told {
		response.AnnouncedAddresses = append(response.AnnouncedAddresses, address.String())
	}
	if err != nil {
		return fmt.Errorf("announce addresses: %w", err)
	}
	return nil
}

func (p *Plan) installKeys(*agentpb.ConfigureResponse) error {
	for index, account := range p.accounts {
		if err := sshkeys.Install(account, p.request.SshKeys[index].Keys); err != nil {
			return err
		}
	}
	return nil
}

func refuse(format string, arguments ...any) error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST, format, arguments...)
}
