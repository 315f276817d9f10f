package ports

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// words writes an address as the kernel does: 32 bit words in the machine's order.
func words(address ...byte) string {
	var text strings.Builder
	for at := 0; at < len(address); at += 4 {
		fmt.Fprintf(&text, "%08X", binary.NativeEndian.Uint32(address[at:]))
	}
	return text.String()
}

func TestAddresses(t *testing.T) {
	six := func(last ...byte) []byte { return append(make([]byte, 16-len(last)), last...) }
	for text, want := range map[string]string{
		words(127, 0, 0, 1) + ":1F90":                     "127.0.0.1:8080",
		words(0, 0, 0, 0) + ":0050":                       "0.0.0.0:80",
		words(six()...) + ":0016":                         "[::]:22",
		words(six(1)...) + ":FFFF":                        "[::1]:65535",
		words(six(0xff, 0xff, 10, 0, 2, 15)...) + ":0001": "10.0.2.15:1",
		"": "", ":": "", "7F:0050": "", "0100007F:10000": "", "0100007F": "", "ZZ00007F:0050": "",
	} {
		got, err := parseAddress(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q: %v", text, got)
			}
		} else if err != nil || got.String() != want {
			t.Errorf("%q: %v %v, wanted %s", text, got, err, want)
		}
	}
}

const headings = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func line(number int, state string) string {
	return fmt.Sprintf("%4d: %s:0050 00000000:0000 %s 00000000:00000000 00:00000000 00000000 1000 0 %d 1 ffff 100\n",
		number, words(127, 0, 0, 1), state, number+1)
}

func read(text string) (map[uint64]Socket, bool, error) {
	found := map[uint64]Socket{}
	more, err := tables[0].read(bufio.NewScanner(strings.NewReader(text)), found)
	return found, more, err
}

func TestOnlyListeningSocketsCount(t *testing.T) {
	found, more, err := read(headings + line(0, "0A") + line(1, "01") + line(2, "06"))
	if err != nil || more || len(found) != 1 {
		t.Fatalf("%v %v %v", found, more, err)
	}
	if got := found[1]; got.Port != 80 || got.UID != 1000 || got.UDP {
		t.Errorf("%+v", got)
	}
}

func TestATableIsReadToItsBoundAndNoFurther(t *testing.T) {
	var text strings.Builder
	text.WriteString(headings)
	for number := range Limit + 1 {
		text.WriteString(line(number, "0A"))
	}
	if found, more, err := read(text.String()); err != nil || !more || len(found) != Limit {
		t.Errorf("%d sockets, more %v, %v", len(found), more, err)
	}
	if found, more, err := read(headings + strings.Repeat(line(0, "01"), mostLines+1)); err != nil || !more || len(found) != 0 {
		t.Errorf("%d sockets, more %v, %v", len(found), more, err)
	}
}

func TestALineThatMakesNoSenseIsAnError(t *testing.T) {
	for _, text := range []string{
		strings.Replace(line(0, "0A"), "0050", "xyz", 1),
		strings.Replace(line(0, "0A"), " 1000 ", " root ", 1),
	} {
		if _, _, err := read(headings + text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
