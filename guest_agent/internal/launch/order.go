package launch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// encode writes a program as strings that end in NUL, which none of them can hold.
func (p *Program) encode() []byte {
	var text []byte
	put := func(value string) { text = append(append(text, value...), 0) }
	put(p.Path)
	put(p.Directory)
	put(strconv.Itoa(p.Umask))
	put(strconv.Itoa(len(p.Limits)))
	for _, limit := range p.Limits {
		put(fmt.Sprintf("%d %d %d", limit.Resource, limit.Soft, limit.Hard))
	}
	if p.Credential == nil {
		put("")
	} else {
		put(fmt.Sprintf("%d %d", p.Credential.Uid, p.Credential.Gid))
		put(strconv.Itoa(len(p.Credential.Groups)))
		for _, group := range p.Credential.Groups {
			put(strconv.FormatUint(uint64(group), 10))
		}
	}
	put(strconv.Itoa(len(p.Argv)))
	for _, argument := range p.Argv {
		put(argument)
	}
	for _, variable := range p.Environment {
		put(variable)
	}
	return text
}

var errOrder = errors.New("not an order of this agent's")

// decode reads what encode wrote.
func decode(text []byte) (*Program, error) {
	fields := strings.Split(string(text), "\x00")
	fields = fields[:len(fields)-1]
	failed := false
	next := func() string {
		if len(fields) == 0 {
			failed = true
			return ""
		}
		field := fields[0]
		fields = fields[1:]
		return field
	}
	number := func() int {
		value, err := strconv.Atoi(next())
		failed = failed || err != nil
		return value
	}
	scan := func(format string, values ...any) {
		_, err := fmt.Sscanf(next(), format, values...)
		failed = failed || err != nil
	}
	p := &Program{Path: next(), Directory: next(), Umask: number()}
	for range number() {
		var limit Limit
		scan("%d %d %d", &limit.Resource, &limit.Soft, &limit.Hard)
		p.Limits = append(p.Limits, limit)
	}
	if len(fields) > 0 && fields[0] == "" {
		next()
	} else {
		p.Credential = &syscall.Credential{}
		scan("%d %d", &p.Credential.Uid, &p.Credential.Gid)
		for range number() {
			p.Credential.Groups = append(p.Credential.Groups, uint32(number()))
		}
	}
	for range number() {
		p.Argv = append(p.Argv, next())
	}
	p.Environment = fields
	if failed {
		return nil, errOrder
	}
	return p, nil
}
