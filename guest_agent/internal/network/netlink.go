package network

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

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
	return r.request(unix.RTM_NEWLINK, 0, linkBody(index, unix.IFF_UP, unix.IFF_UP))
}

// setDown is ip link set INDEX down.
func (r *route) setDown(index int) error {
	return r.request(unix.RTM_NEWLINK, 0, linkBody(index, 0, unix.IFF_UP))
}

// setMAC is ip link set INDEX address MAC.
func (r *route) setMAC(index int, mac net.HardwareAddr) error {
	return r.request(unix.RTM_NEWLINK, 0, attribute(linkBody(index, 0, 0), unix.IFLA_ADDRESS, mac))
}

func linkBody(index int, flags, change uint32) []byte {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[8:], flags)   // ifi_flags
	binary.NativeEndian.PutUint32(body[12:], change) // ifi_change
	return body
}

// addAddress is ip address replace PREFIX dev INDEX nodad: whoever gives out the addresses knows that they are free.
func (r *route) addAddress(index int, prefix netip.Prefix) error {
	return r.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, addressBody(index, prefix))
}

// removeAddress is ip address delete PREFIX dev INDEX.
func (r *route) removeAddress(index int, prefix netip.Prefix) error {
	return r.request(unix.RTM_DELADDR, 0, addressBody(index, prefix))
}

func addressBody(index int, prefix netip.Prefix) []byte {
	body := []byte{family(prefix.Addr()), byte(prefix.Bits()), 0, unix.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	if prefix.Addr().Is6() {
		body[2] = unix.IFA_F_NODAD
	}
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	address := prefix.Addr().AsSlice()
	body = attribute(body, unix.IFA_LOCAL, address)
	return attribute(body, unix.IFA_ADDRESS, address)
}

// addDefault is ip route append default via GATEWAY dev INDEX: replacing would take that of another interface.
func (r *route) addDefault(index int, gateway netip.Addr) error {
	return r.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, defaultBody(index, gateway))
}

// removeDefault is ip route delete default via GATEWAY dev INDEX.
func (r *route) removeDefault(index int, gateway netip.Addr) error {
	body := defaultBody(index, gateway)
	body[5], body[6] = unix.RTPROT_UNSPEC, unix.RT_SCOPE_NOWHERE // whoever made it
	return r.request(unix.RTM_DELROUTE, 0, body)
}

func defaultBody(index int, gateway netip.Addr) []byte {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family(gateway)
	body[4] = unix.RT_TABLE_MAIN
	body[5] = unix.RTPROT_BOOT
	body[6] = unix.RT_SCOPE_UNIVERSE
	body[7] = unix.RTN_UNICAST
	body = attribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	return attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
}

// assigned is an address that an interface has.
type assigned struct {
	prefix netip.Prefix
	scope  byte
	flags  byte
}

// addresses is ip address show dev INDEX.
func (r *route) addresses(index int) ([]assigned, error) {
	var found []assigned
	err := r.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(body []byte) {
		if len(body) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(body[4:]) != uint32(index) {
			return
		}
		var address netip.Addr
		eachAttribute(body[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			// IPv6 has no IFA_LOCAL; where there is one, IFA_ADDRESS is the other end of the link.
			if parsed, ok := netip.AddrFromSlice(value); ok && (kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !address.IsValid()) {
				address = parsed
			}
		})
		if address.IsValid() {
			found = append(found, assigned{netip.PrefixFrom(address, int(body[1])), body[3], body[2]})
		}
	})
	return found, err
}

// defaults lists the gateways of default routes through an interface.
func (r *route) defaults(index int) ([]netip.Addr, error) {
	var found []netip.Addr
	err := r.dump(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), func(body []byte) {
		if len(body) < unix.SizeofRtMsg || body[1] != 0 || body[4] != unix.RT_TABLE_MAIN {
			return
		}
		var gateway netip.Addr
		through := uint32(0)
		eachAttribute(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
			switch {
			case kind == unix.RTA_GATEWAY:
				gateway, _ = netip.AddrFromSlice(value)
			case kind == unix.RTA_OIF && len(value) == 4:
				through = binary.NativeEndian.Uint32(value)
			}
		})
		if through == uint32(index) && gateway.IsValid() {
			found = append(found, gateway)
		}
	})
	return found, err
}

// request sends one message and waits for the kernel's verdict on it.
func (r *route) request(kind uint16, flags uint16, body []byte) error {
	if err := r.send(kind, flags|unix.NLM_F_ACK, body); err != nil {
		return err
	}
	return r.receive(func(uint16, []byte) error { return errUnexpected })
}

// dump sends one question and hands over the body of every answer.
func (r *route) dump(kind uint16, body []byte, take func(body []byte)) error {
	if err := r.send(kind, unix.NLM_F_DUMP, body); err != nil {
		return err
	}
	return r.receive(func(_ uint16, body []byte) error {
		take(body)
		return nil
	})
}

func (r *route) send(kind uint16, flags uint16, body []byte) error {
	r.sequence++
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|flags)
	message = binary.NativeEndian.AppendUint32(message, r.sequence)
	message = binary.NativeEndian.AppendUint32(message, 0)
	message = append(message, body...)
	if err := unix.Sendto(r.socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	return nil
}

var errUnexpected = errors.New("rtnetlink: an answer that makes no sense")

// receive reads until the kernel's verdict, or the end of a dump.
func (r *route) receive(take func(kind uint16, body []byte) error) error {
	answer := make([]byte, 32*1024) // as much as the kernel puts into one datagram of a dump
	for {
		size, _, err := unix.Recvfrom(r.socket, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(answer[:size])
		if err != nil {
			return errUnexpected
		}
		for _, message := range messages {
			switch {
			case message.Header.Seq != r.sequence: // the rest of a question that failed
			case message.Header.Type == unix.NLMSG_DONE:
				return nil
			case message.Header.Type != unix.NLMSG_ERROR:
				if err := take(message.Header.Type, message.Data); err != nil {
					return err
				}
			case len(message.Data) < 4:
				return errUnexpected
			default:
				if code := int32(binary.NativeEndian.Uint32(message.Data)); code != 0 {
					return unix.Errno(-code)
				}
				return nil
			}
		}
	}
}

// eachAttribute reads a list of struct rtattr.
func eachAttribute(list []byte, take func(kind uint16, value []byte)) {
	for len(list) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(list))
		if size < unix.SizeofRtAttr || size > len(list) {
			return
		}
		take(binary.NativeEndian.Uint16(list[2:]), list[unix.SizeofRtAttr:size])
		list = list[min(len(list), (size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
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
