package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// route is a connection to the kernel's routing tables; see rtnetlink(7).
type route struct {
	socket   int
	sequence uint32
}

func openRoute() (*route, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &route{socket: socket}, nil
}

func (r *route) close() { _ = unix.Close(r.socket) }

// index is the number of an interface, asked by ioctl (netdevice(7)): package net would have all of them listed.
func (r *route) index(name string) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(r.socket, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return int(request.Uint32()), nil
}

// setUp brings a link up: ip link set INDEX up.
func (r *route) setUp(index int) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)  // ifi_flags
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP) // ifi_change
	return r.request(unix.RTM_NEWLINK, 0, body)
}

// addAddress is ip address replace PREFIX dev INDEX.
func (r *route) addAddress(index int, prefix netip.Prefix) error {
	body := []byte{family(prefix.Addr()), byte(prefix.Bits()), 0, unix.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	address := prefix.Addr().AsSlice()
	body = attribute(body, unix.IFA_LOCAL, address)
	body = attribute(body, unix.IFA_ADDRESS, address)
	return r.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

// addDefault is ip route replace default via GATEWAY dev INDEX.
func (r *route) addDefault(index int, gateway netip.Addr) error {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family(gateway)
	body[4] = unix.RT_TABLE_MAIN
	body[5] = unix.RTPROT_BOOT
	body[6] = unix.RT_SCOPE_UNIVERSE
	body[7] = unix.RTN_UNICAST
	body = attribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	body = attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	return r.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

// request sends one message and waits for the kernel's verdict on it.
func (r *route) request(kind uint16, flags uint16, body []byte) error {
	r.sequence++
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	message = binary.NativeEndian.AppendUint32(message, r.sequence)
	message = binary.NativeEndian.AppendUint32(message, 0)
	message = append(message, body...)
	if err := unix.Sendto(r.socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, os.Getpagesize())
	for {
		size, _, err := unix.Recvfrom(r.socket, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if size < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			return fmt.Errorf("rtnetlink: unexpected answer of %d bytes", size)
		}
		if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
			return unix.Errno(-code)
		}
		return nil
	}
}

// attribute appends a struct rtattr, padded to 4 bytes.
func attribute(message []byte, kind uint16, value []byte) []byte {
	message = binary.NativeEndian.AppendUint16(message, uint16(unix.SizeofRtAttr+len(value)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = append(message, value...)
	for len(message)%unix.RTA_ALIGNTO != 0 {
		message = append(message, 0)
	}
	return message
}

func family(address netip.Addr) byte {
	if address.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
