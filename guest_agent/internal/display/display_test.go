package display

import (
	"math/rand"
	"strings"
	"testing"
)

func sent(text string) *Display {
	d := &Display{}
	d.Write([]byte(text))
	return d
}

func TestATerminalIsSetAsTheFirstOneWas(t *testing.T) {
	for text, want := range map[string]string{
		"":                                             "",
		"plain text\r\n\x07\t":                         "",
		"\x1b[?1049h\x1b[?25l":                         "\x1b[?1049h\x1b[?25l",
		"\x1b[?1049;25;2004h\x1b[?1049l":               "\x1b[?2004h",
		"\x1b[?1000h\x1b[?1006h\x1b[?1000l":            "\x1b[?1006h",
		"\x1b[?7l\x1b[4h\x1b[20h\x1b=":                 "\x1b[?7l\x1b[4h\x1b[20h\x1b=",
		"\x1b[4h\x1b[4l\x1b=\x1b>":                     "",
		"\x1b(0\x1b)B\x0e":                             "\x1b(0\x1b)B\x0e",
		"\x1b(0\x0e\x0f":                               "\x1b(0",
		"\x1b[2;10r":                                   "\x1b[2;10r",
		"\x1b[2;10r\x1b[r":                             "",
		"\x1b[4 q\x1b[>4;2m\x1b[>1u\x1b[>5u":           "\x1b[4 q\x1b[>4;2m\x1b[>1u\x1b[>5u",
		"\x1b[>1u\x1b[>5u\x1b[<u":                      "\x1b[>1u",
		"\x1b[>1u\x1b[<9u":                             "",
		"\x1b[1;31mred\x1b[4m":                         "\x1b[1m\x1b[4m\x1b[31m",
		"\x1b[1;31mred\x1b[m":                          "",
		"\x1b[1;2;3m\x1b[22m":                          "\x1b[3m",
		"\x1b[38;5;200;1m":                             "\x1b[1m\x1b[38;5;200m",
		"\x1b[38;2;1;2;3;48:5:7m":                      "\x1b[38;2;1;2;3m\x1b[48;5;7m",
		"\x1b[38:2::1:2:3m\x1b[4:3m":                   "\x1b[4:3m\x1b[38;2;1;2;3m",
		"\x1b[31;41m\x1b[39m":                          "\x1b[41m",
		"\x1b[31m\x1bc":                                "",
		"\x1b[?2004h\x1b[31m\x1b[?6h\x1b[!p":           "\x1b[?2004h",
		"\x1b]0;\x1b[?1049h is no title\x07":           "\x1b[?1049h", // an escape ends a string
		"\x1b]0;[?1049h\x07":                           "",
		"\x1bP[?1049h\x1b\\":                           "",
		"\x1b[?1049\x18h":                              "",
		"\x9b?1049h":                                   "", // no control character where UTF-8 is read
		"\x1b[?" + strings.Repeat("1;", 100) + "1049h": "", // too long to mean something
		"\x1b[?99999999999999999999h":                  "",
	} {
		if got := string(sent(text).Restore()); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestABoundaryIsBehindCharactersAndSequences(t *testing.T) {
	for text, rest := range map[string]string{
		"a":                     "",
		"ä|b":                   "\xa4|b",
		"\U0001f525|":           "\xa5|",
		"\xe2\x82|":             "\x82|", // a character that is cut short ends where another begins
		"\x1b[1;31m|":           "31m|",
		"\x1b]0;a title\x07|":   "title\x07|",
		"\x1b]0;a title\x1b\\|": "\\|",
		"\x1bPq#0;2;0~\x1b\\|":  "~\x1b\\|",
		"\x1b(0|":               "0|",
	} {
		d := sent(strings.TrimSuffix(text, rest))
		if size := d.ToBoundary([]byte(rest)); rest != "" && !strings.HasPrefix(rest[size:], "|") {
			t.Errorf("%q %q: %q", strings.TrimSuffix(text, rest), rest, rest[size:])
		}
	}
}

func FuzzAnyCutGivesTheSameAndWhatIsRestoredIsTheSame(f *testing.F) {
	f.Add([]byte("\x1b[?1049h\x1b[1;38;2;1;2;3mä\x1b(0\x0e\x1b[3;7r\x1b[>1u"), int64(1))
	f.Fuzz(func(t *testing.T, data []byte, seed int64) {
		whole, cut := &Display{}, &Display{}
		whole.Write(data)
		random := rand.New(rand.NewSource(seed))
		for rest := data; len(rest) > 0; {
			size := 1 + random.Intn(len(rest))
			cut.Write(rest[:size])
			rest = rest[size:]
		}
		if *whole != *cut {
			t.Fatal("not the same")
		}
		another := sent(string(whole.Restore()))
		if !another.AtBoundary() {
			t.Errorf("%q ends in the middle", whole.Restore())
		}
		if again := another.Restore(); string(again) != string(whole.Restore()) {
			t.Errorf("%q gives %q", whole.Restore(), again)
		}
		whole.Write(Renew())
		if left := string(whole.Restore()); strings.Contains(left, "?1049") || !whole.AtBoundary() {
			t.Errorf("renewed, and %q", left)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	piece := []byte(strings.Repeat("\x1b[1;32mwords\x1b[m and more words of a program that lists files\r\n", 100))
	b.SetBytes(int64(len(piece)))
	d := &Display{}
	for b.Loop() {
		d.Write(piece)
	}
}
