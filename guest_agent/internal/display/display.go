// Package display knows how a terminal is set after what it was sent: not what it shows, but how it takes what comes
// next. So the end of a long output can be shown on another terminal as it was on the first.
package display

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/charmbracelet/x/ansi/parser"
)

// longestSequence is how many bytes of a control sequence are looked at; longer ones set nothing that we know.
const longestSequence = 64

// mostKeyboards is how many keyboard settings a program may put on top of one another; kitty, which invented them, allows
// no more either.
const mostKeyboards = 8

// Display is a terminal. The zero value was sent nothing yet; a copy is another one in the same state.
type Display struct {
	// Of the sequence or character that has begun.
	state     parser.State
	left      int8 // bytes that a character of UTF-8 still lacks
	size      int8 // of the sequence; longestSequence + 1 if it is longer
	sequence  [longestSequence]byte
	charsets  [4]byte                 // the final byte of what designates G0 to G3; 0: as it was
	shift     byte                    // which of them is in use
	private   [len(privateModes)]bool // of privateModes: whether it is not as at first
	insert    bool
	newLine   bool
	keypad    bool
	top       int
	bottom    int // both 0: the whole screen
	cursor    int
	otherKeys int
	keyboards [mostKeyboards]int
	depth     int
	pen       pen
}

// privateModes are those of DECSET that outlive what is drawn. The screens come first: others may belong to them. What
// is left out on purpose is ?2026, which makes a terminal wait for its end.
var privateModes = [...]int{
	47, 1047, 1049, // the alternate screen
	1, 5, 6, 7, 12, 25, 45, 66, 67, 69, // keys, colours, origin, wrapping, the cursor
	9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, // the mouse, focus
	2004, 2027, 2031, 2048, // pasting, widths, colours, size
}

// setAtFirst: wrapping and the cursor.
func setAtFirst(mode int) bool { return mode == 7 || mode == 25 }

// AtBoundary tells that no character and no sequence has begun.
func (d *Display) AtBoundary() bool { return d.state == parser.GroundState && d.left == 0 }

// Write takes what the terminal is sent.
func (d *Display) Write(data []byte) {
	for _, code := range data {
		d.take(code)
	}
}

// ToBoundary takes bytes until no character and no sequence has begun, and says how many.
func (d *Display) ToBoundary(data []byte) int {
	for at, code := range data {
		if d.left > 0 && code&0xc0 != 0x80 {
			d.left = 0 // one that was cut short
		}
		if d.AtBoundary() {
			return at
		}
		d.take(code)
	}
	return len(data)
}

func (d *Display) take(code byte) {
	if d.left > 0 && code&0xc0 == 0x80 {
		d.left--
		return
	}
	d.left = 0
	if code >= 0x80 {
		// Terminals that read UTF-8 know no control characters of 8 bits.
		if d.state == parser.GroundState {
			d.left = lacking(code)
		}
		return
	}
	state, action := parser.Table.Transition(d.state, code)
	switch action {
	case parser.ClearAction:
		d.size = 0
	case parser.CollectAction, parser.PrefixAction, parser.ParamAction:
		if d.size < longestSequence {
			d.sequence[d.size] = code
		}
		d.size = min(d.size+1, longestSequence+1)
	case parser.ExecuteAction:
		switch code {
		case 0x0e:
			d.shift = 1
		case 0x0f:
			d.shift = 0
		}
	case parser.DispatchAction:
		if known := d.sequence[:min(d.size, longestSequence)]; d.size <= longestSequence {
			switch d.state {
			case parser.EscapeState, parser.EscapeIntermediateState:
				d.escape(known, code)
			case parser.CsiEntryState, parser.CsiParamState, parser.CsiIntermediateState:
				d.control(known, code)
			}
		}
	}
	if state == parser.EscapeState && d.state != parser.EscapeState {
		d.size = 0 // also where it ends a string
	}
	d.state = state
}

// lacking is how many bytes follow the first one of a character.
func lacking(first byte) int8 {
	switch {
	case first >= 0xf0 && first <= 0xf4:
		return 3
	case first >= 0xe0 && first < 0xf0:
		return 2
	case first >= 0xc2 && first < 0xe0:
		return 1
	}
	return 0
}

// escape does what ESC, perhaps something between, and a final byte say.
func (d *Display) escape(between []byte, final byte) {
	switch {
	case len(between) == 1 && between[0] >= '(' && between[0] <= '+':
		d.charsets[between[0]-'('] = final
	case len(between) > 0:
	case final == 'c':
		*d = Display{}
	case final == '=':
		d.keypad = true
	case final == '>':
		d.keypad = false
	case final == 'n':
		d.shift = 2
	case final == 'o':
		d.shift = 3
	}
}

// control does what CSI, parameters and a final byte say.
func (d *Display) control(parameters []byte, final byte) {
	prefix, rest := byte(0), parameters
	if len(rest) > 0 && rest[0] >= '<' && rest[0] <= '?' {
		prefix, rest = rest[0], rest[1:]
	}
	between := byte(0)
	if size := len(rest); size > 0 && rest[size-1] >= 0x20 && rest[size-1] <= 0x2f {
		between, rest = rest[size-1], rest[:size-1]
	}
	numbers := parse(rest)
	switch name(prefix, between, final) {
	case "?h", "?l":
		for _, number := range numbers {
			for at, mode := range privateModes {
				if mode == number.value {
					d.private[at] = (final == 'h') != setAtFirst(mode)
				}
			}
		}
	case "h", "l":
		for _, number := range numbers {
			switch number.value {
			case 4:
				d.insert = final == 'h'
			case 20:
				d.newLine = final == 'h'
			}
		}
	case "r":
		d.top, d.bottom = at(numbers, 0), at(numbers, 1)
	case " q":
		d.cursor = at(numbers, 0)
	case "!p":
		d.softReset()
	case ">m":
		if at(numbers, 0) == 4 {
			d.otherKeys = at(numbers, 1)
		}
	case ">u":
		if d.depth == mostKeyboards {
			copy(d.keyboards[:], d.keyboards[1:])
			d.depth--
		}
		d.keyboards[d.depth] = at(numbers, 0)
		d.depth++
	case "<u":
		d.depth = max(0, d.depth-max(1, at(numbers, 0)))
	case "m":
		d.pen.take(numbers)
	}
}

// name is what a sequence is called, without its parameters.
func name(codes ...byte) string {
	return string(slices.DeleteFunc(codes, func(code byte) bool { return code == 0 }))
}

// softReset is DECSTR: of what we know, it leaves the screen, the mouse, the pasting and the keyboard alone.
func (d *Display) softReset() {
	for at, mode := range privateModes {
		switch mode {
		case 1, 6, 7, 25, 66, 69:
			d.private[at] = false
		}
	}
	d.insert, d.keypad, d.top, d.bottom = false, false, 0, 0
	d.charsets, d.shift, d.pen = [4]byte{}, 0, pen{}
}

// Restore is what sets a new terminal as this one is.
func (d *Display) Restore() []byte {
	var out bytes.Buffer
	for at, mode := range privateModes {
		if d.private[at] {
			setMode(&out, mode, !setAtFirst(mode))
		}
	}
	if d.insert {
		out.WriteString("\x1b[4h")
	}
	if d.newLine {
		out.WriteString("\x1b[20h")
	}
	if d.keypad {
		out.WriteString("\x1b=")
	}
	if d.bottom > 0 || d.top > 1 {
		fmt.Fprintf(&out, "\x1b[%d;%dr", max(1, d.top), d.bottom)
	}
	if d.cursor > 0 {
		fmt.Fprintf(&out, "\x1b[%d q", d.cursor)
	}
	if d.otherKeys > 0 {
		fmt.Fprintf(&out, "\x1b[>4;%dm", d.otherKeys)
	}
	for _, flags := range d.keyboards[:d.depth] {
		fmt.Fprintf(&out, "\x1b[>%du", flags)
	}
	for at, set := range d.charsets {
		if set != 0 {
			out.Write([]byte{0x1b, "()*+"[at], set})
		}
	}
	if d.shift > 0 {
		out.WriteString([]string{"\x0e", "\x1bn", "\x1bo"}[d.shift-1])
	}
	d.pen.restore(&out)
	return out.Bytes()
}

// Renew is what makes a new terminal of one in an unknown state, in the middle of a sequence perhaps.
func Renew() []byte {
	var out bytes.Buffer
	out.WriteString("\x18\x1b[!p")
	for _, mode := range privateModes {
		setMode(&out, mode, setAtFirst(mode))
	}
	out.WriteString("\x1b[20l\x1b[0 q\x1b[>4m")
	fmt.Fprintf(&out, "\x1b[<%du", mostKeyboards)
	return out.Bytes()
}

// Alternate tells that the alternate screen is shown, on which programs draw what they like where they like.
func (d *Display) Alternate() bool { return d.private[0] || d.private[1] || d.private[2] }

func setMode(out *bytes.Buffer, mode int, on bool) {
	final := 'l'
	if on {
		final = 'h'
	}
	fmt.Fprintf(out, "\x1b[?%d%c", mode, final)
}

// number is a parameter, and how it follows the one before it: by a colon if it is a part of that.
type number struct {
	value int
	part  bool
}

// largest is more than any parameter that means something.
const largest = 65535

// parse reads parameters; there is one at least.
func parse(text []byte) []number {
	numbers := []number{{}}
	for _, code := range text {
		last := &numbers[len(numbers)-1]
		switch {
		case code >= '0' && code <= '9':
			last.value = min(largest, last.value*10+int(code-'0'))
		case code == ';':
			numbers = append(numbers, number{})
		case code == ':':
			numbers = append(numbers, number{part: true})
		}
	}
	return numbers
}

func at(numbers []number, place int) int {
	if place < len(numbers) {
		return numbers[place].value
	}
	return 0
}
