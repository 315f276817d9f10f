package display

import (
	"bytes"
	"fmt"
)

// pen is how text is written: what SGR sets.
type pen struct {
	attributes uint32 // by bit; see attributes below
	underline  int    // its kind
	colours    [3]colour
}

// colour is what follows 38, 48 or 58 in SGR; none: the usual one.
type colour struct {
	size    int8
	numbers [5]int
}

// The codes from 1 to 9, and 53 as the 10th, have a bit each; 4 has underline.
const overlined = 10

// ends are the codes that end others.
var ends = map[int][]int{22: {1, 2}, 23: {3}, 25: {5, 6}, 27: {7}, 28: {8}, 29: {9}, 55: {overlined}}

func (p *pen) take(numbers []number) {
	for at := 0; at < len(numbers); at++ {
		code := numbers[at].value
		parts := at + 1
		for parts < len(numbers) && numbers[parts].part {
			parts++
		}
		switch {
		case code == 0:
			*p = pen{}
		case code == 4:
			p.underline = 1
			if parts > at+1 {
				p.underline = numbers[at+1].value
			}
		case code == 21:
			p.underline = 2
		case code == 24:
			p.underline = 0
		case code <= 9:
			p.attributes |= 1 << code
		case code == 53:
			p.attributes |= 1 << overlined
		case ends[code] != nil:
			for _, ended := range ends[code] {
				p.attributes &^= 1 << ended
			}
		case code >= 30 && code <= 37, code >= 90 && code <= 97:
			p.colours[0] = colour{1, [5]int{code}}
		case code >= 40 && code <= 47, code >= 100 && code <= 107:
			p.colours[1] = colour{1, [5]int{code}}
		case code == 39, code == 49, code == 59:
			p.colours[(code-39)/10] = colour{}
		case code == 38, code == 48, code == 58:
			var components []number
			if parts > at+1 {
				components = numbers[at+1 : parts]
				if len(components) == 5 && components[0].value == 2 { // 38:2:SPACE:R:G:B
					components = append([]number{components[0]}, components[2:]...)
				}
			} else {
				components = numbers[at+1 : min(len(numbers), at+1+extent(numbers[at+1:]))]
				parts = at + 1 + len(components)
			}
			p.colours[(code-38)/10] = colourOf(code, components)
		}
		at = parts - 1
	}
}

// extent is how many parameters a colour has that is written with semicolons.
func extent(numbers []number) int {
	switch at(numbers, 0) {
	case 5:
		return 2
	case 2:
		return 4
	}
	return 1
}

// colourOf is 5;N or 2;R;G;B; anything else is none.
func colourOf(code int, components []number) colour {
	kind := at(components, 0)
	if !(kind == 5 && len(components) == 2) && !(kind == 2 && len(components) == 4) {
		return colour{}
	}
	found := colour{int8(1 + len(components)), [5]int{code}}
	for place, component := range components {
		found.numbers[1+place] = component.value
	}
	return found
}

func (p *pen) restore(out *bytes.Buffer) {
	for code := 1; code <= 9; code++ {
		if p.attributes&(1<<code) != 0 {
			fmt.Fprintf(out, "\x1b[%dm", code)
		}
	}
	if p.attributes&(1<<overlined) != 0 {
		out.WriteString("\x1b[53m")
	}
	switch {
	case p.underline == 1:
		out.WriteString("\x1b[4m")
	case p.underline > 1:
		fmt.Fprintf(out, "\x1b[4:%dm", p.underline)
	}
	for _, colour := range p.colours {
		for place, value := range colour.numbers[:colour.size] {
			out.WriteString([]string{"\x1b[", ";"}[min(place, 1)])
			fmt.Fprintf(out, "%d", value)
		}
		if colour.size > 0 {
			out.WriteByte('m')
		}
	}
}
