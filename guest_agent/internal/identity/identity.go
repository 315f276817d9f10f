// Package identity makes a guest this one and no other: what it is told when it boots, and when a memory that was kept
// goes on as another one or later.
package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/clock"
	"ingle.dev/guest_agent/internal/command"
	"ingle.dev/guest_agent/internal/entropy"
	"ingle.dev/guest_agent/internal/ext4"
	"ingle.dev/guest_agent/internal/failure"
	"ingle.dev/guest_agent/internal/hostkeys"
	"ingle.dev/guest_agent/internal/machineid"
	"ingle.dev/guest_agent/internal/naming"
	"ingle.dev/guest_agent/internal/network"
	"ingle.dev/guest_agent/internal/sshkeys"
	"ingle.dev/guest_agent/internal/users"
)

// TokenSize is what a caller must know: 256 bits.
const TokenSize = 32

const (
	mostEntropy   = 4096
	mostKeys      = 1000
	mostVariables = 10_000

	// latest is the beginning of 2200; the kernel's own limit is some years later.
	latest = 7258118400 * int64(time.Second)

	// diskPatience is how long the kernel may take to see that its disk has grown.
	diskPatience = 5 * time.Second
)

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Plan is an identity that can be taken.
type Plan struct {
	wanted     *agentpb.GuestIdentity
	rootDevice string
	addresses  []network.Configuration
	accounts   []users.Account
}

// Check reads an identity and looks up what it names, in a guest with this root device. Nothing is changed; errors are
// *failure.Error.
func Check(wanted *agentpb.GuestIdentity, rootDevice string) (*Plan, error) {
	plan := &Plan{wanted: wanted, rootDevice: rootDevice}
	for _, check := range []func() error{plan.checkSelf, plan.checkEnvironment, plan.checkNetworks, plan.checkKeys} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

func (p *Plan) checkSelf() error {
	wanted := p.wanted
	switch setting := wanted.Clock; {
	case len(wanted.Entropy) > mostEntropy:
		return refuse("entropy of %d bytes: at most %d is allowed", len(wanted.Entropy), mostEntropy)
	case setting != nil && (setting.UnixNanoseconds <= 0 || setting.UnixNanoseconds > latest):
		return refuse("clock %d ns: a time from 1970 to 2200 is allowed", setting.UnixNanoseconds)
	case wanted.Hostname != "" && !label.MatchString(wanted.Hostname):
		return refuse("hostname %.80q: 1 to 63 of a-z, 0-9 and '-', not at either end, is allowed", wanted.Hostname)
	case wanted.MachineId != "" && !machineid.Valid(wanted.MachineId):
		return refuse("machine-id %.80q: 32 of 0-9 and a-f, not all 0, is allowed", wanted.MachineId)
	case len(wanted.Token) != 0 && len(wanted.Token) != TokenSize:
		return refuse("token of %d bytes: %d is allowed", len(wanted.Token), TokenSize)
	case wanted.DiskBytes > 0 && p.rootDevice == "":
		return refuse("a size of the root device: this agent has none")
	}
	return nil
}

func (p *Plan) checkEnvironment() error {
	variables := p.wanted.GetEnvironment().GetVariables()
	if count := len(variables); count > mostVariables {
		return refuse("%d environment variables: at most %d are allowed", count, mostVariables)
	}
	for name, value := range variables {
		if err := command.CheckVariable(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) checkNetworks() error {
	for _, wanted := range p.wanted.Networks {
		parsed, err := network.Parse(wanted.Interface, wanted.Address, wanted.Gateway, wanted.Mac)
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
	}
	var err error
	p.addresses, err = Addresses(p.wanted.Networks)
	return err
}

// Addresses are those that a guest's kernel can have: it may do without IPv6.
func Addresses(networks []*agentpb.Network) ([]network.Configuration, error) {
	var addresses []network.Configuration
	for _, wanted := range networks {
		parsed, err := network.Parse(wanted.Interface, wanted.Address, wanted.Gateway, wanted.Mac)
		if err != nil {
			return nil, err
		}
		if parsed.Address.Addr().Is4() || network.HasIPv6() {
			addresses = append(addresses, parsed)
		}
	}
	return addresses, nil
}

func (p *Plan) checkKeys() error {
	for _, wanted := range p.wanted.SshKeys {
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

// Apply does all that is the machine's, in the order that the contract says. Environment and token are whoever's who
// answers callers.
func (p *Plan) Apply() (*agentpb.IdentityTaken, error) {
	taken := &agentpb.IdentityTaken{}
	for _, apply := range []func(*agentpb.IdentityTaken) error{
		func(*agentpb.IdentityTaken) error { return entropy.Credit(p.wanted.Entropy) },
		p.setClock,
		p.setNames,
		func(*agentpb.IdentityTaken) error { return network.Configure(p.addresses) },
		p.announce,
		p.installKeys,
		p.becomeMachine,
		p.growDisk,
	} {
		if err := apply(taken); err != nil {
			return nil, err
		}
	}
	return taken, nil
}

func (p *Plan) setClock(taken *agentpb.IdentityTaken) error {
	if p.wanted.Clock == nil {
		return nil
	}
	wanted := time.Unix(0, p.wanted.Clock.UnixNanoseconds)
	offset := time.Now().Round(0).Sub(wanted) // Round: the wall clock, not the monotonic one
	ahead := offset.Nanoseconds()
	taken.ClockOffsetNanoseconds = &ahead
	theirs := clock.SetByOthers() // asked each time, since it looks from the first time on
	if uint64(offset.Abs()) <= p.wanted.Clock.ToleranceNanoseconds || (theirs && p.wanted.Clock.UnlessSetByGuest) {
		return nil
	}
	if err := clock.Set(p.wanted.Clock.UnixNanoseconds); err != nil {
		return err
	}
	taken.ClockStepped = true
	return nil
}

// setNames follows a hostname, an address, or both, since /etc/hosts has them on one line.
func (p *Plan) setNames(*agentpb.IdentityTaken) error {
	address := ""
	if len(p.addresses) > 0 {
		address = p.addresses[0].Address.Addr().String()
	}
	if p.wanted.Hostname != "" || address != "" {
		if err := naming.Change(p.wanted.Hostname, address); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
	}
	var servers []string
	for _, wanted := range p.wanted.Networks {
		servers = append(servers, wanted.Nameservers...)
	}
	return naming.UseNameservers(servers)
}

func (p *Plan) announce(taken *agentpb.IdentityTaken) error {
	if !p.wanted.Announce {
		return nil
	}
	told, err := network.Announce()
	for _, address := range told {
		taken.AnnouncedAddresses = append(taken.AnnouncedAddresses, address.String())
	}
	if err != nil {
		return fmt.Errorf("announce addresses: %w", err)
	}
	return nil
}

func (p *Plan) installKeys(*agentpb.IdentityTaken) error {
	for index, account := range p.accounts {
		if err := sshkeys.Install(account, p.wanted.SshKeys[index].Keys); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) becomeMachine(*agentpb.IdentityTaken) error {
	if p.wanted.MachineId == "" {
		return nil
	}
	newKeys, err := machineid.Take(p.wanted.MachineId, false)
	if newKeys {
		hostkeys.Reload()
	}
	if err != nil {
		return fmt.Errorf("machine-id: %w", err)
	}
	return nil
}

func (p *Plan) growDisk(*agentpb.IdentityTaken) error {
	if p.wanted.DiskBytes == 0 {
		return nil
	}
	return ext4.GrowTo(p.wanted.DiskBytes, p.rootDevice, "/", diskPatience)
}

func refuse(format string, arguments ...any) *failure.Error {
	return failure.New(agentpb.ErrorCode_ERROR_CODE_BAD_REQUEST, format, arguments...)
}
