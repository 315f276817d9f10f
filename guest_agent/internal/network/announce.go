package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Announce tells every neighbour which hardware address the guest's addresses have now: by gratuitous ARP (RFC 5227,
// section 3) and unsolicited neighbour advertisements (RFC 4861, section 7.2.6). Without it, they would go on sending
// to whoever had an address before, until their entries expire. It answers the addresses of which it told; those that
// the kernel still probes, it leaves out.
func Announce() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	routes, err := openRoute()
	if err != nil {
		return nil, err
	}
	defer routes.close()
	var told []netip.Addr
	for _, link := range interfaces {
		if link.Flags&net.FlagUp == 0 || link.Flags&net.FlagLoopback != 0 || len(link.HardwareAddr) != 6 {
			continue
		}
		addresses, err := routes.addresses(link.Index)
		if err != nil {
			return told, err
		}
		for _, one := range addresses {
			if one.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
				continue
			}
			tell := sendAdvertisement
			if one.prefix.Addr().Is4() {
				tell = sendARP
			}
			if err := tell(link, one.prefix.Addr()); err != nil {
				return told, err
			}
			told = append(told, one.prefix.Addr())
		}
	}
	return told, nil
}

// networkOrder is what a struct sockaddr_ll wants of an Ethernet protocol number.
func networkOrder(protocol uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
}

func sendARP(link net.Interface, address netip.Addr) error {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // 0: it receives nothing
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { go unix.Close(socket) }() // the kernel waits for all processors before it lets go of such a one
	everybody := &unix.SockaddrLinklayer{
		Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: link.Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	return os.NewSyscallError("sendto", unix.Sendto(socket, announcement(link.HardwareAddr, address), 0, everybody))
}

// announcement is an ARP request for one's own address; see RFC 826 for the fields.
func announcement(hardware net.HardwareAddr, address netip.Addr) []byte {
	const ethernet, request = 1, 1
	packet := binary.BigEndian.AppendUint16(nil, ethernet)
	packet = binary.BigEndian.AppendUint16(packet, unix.ETH_P_IP)
	packet = append(packet, 6, 4)
	packet = binary.BigEndian.AppendUint16(packet, request)
	packet = append(append(packet, hardware...), address.AsSlice()...)
	return append(append(packet, make([]byte, 6)...), address.AsSlice()...)
}

func sendAdvertisement(link net.Interface, address netip.Addr) error {
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)
	// Whoever hears of a neighbour from farther than a hop doesn't believe it.
	if err := unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(socket, &unix.SockaddrInet6{Addr: address.As16(), ZoneId: uint32(link.Index)}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	everybody := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(link.Index)}
	return os.NewSyscallError("sendto", unix.Sendto(socket, advertisement(link.HardwareAddr, address), 0, everybody))
}

// advertisement is a neighbour advertisement that overrides what was known. The kernel adds the checksum.
func advertisement(hardware net.HardwareAddr, address netip.Addr) []byte {
	const neighbourAdvertisement, override, targetLinkLayer, eightBytes = 136, 0x20, 2, 1
	packet := []byte{neighbourAdvertisement, 0, 0, 0, override, 0, 0, 0}
	packet = append(packet, address.AsSlice()...)
	packet = append(packet, targetLinkLayer, eightBytes)
	return append(packet, hardware...)
}
