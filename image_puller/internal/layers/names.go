package layers

import (
	"strings"

	"ingle.dev/image_puller/internal/wire"
)

// Linux's own bounds, and how deep a directory may be.
const (
	longestName   = 255
	longestPath   = 4095
	longestTarget = 4095
	deepest       = 256
	mostLinks     = 40
	// mostTargets is how many bytes all symlinks may hold together: they are in memory.
	mostTargets = 256 << 20
	// stepsAName is how often names may lead on from one to the next, for each that there may be.
	stepsAName = 256
)

// step counts what costs time.
func (t *Tree) step(count int) error {
	if t.steps += count; t.steps > stepsAName*t.limits.Names {
		return invalid("its names lead from one to the next more than the %d times that are allowed", stepsAName*t.limits.Names)
	}
	return nil
}

func invalid(format string, arguments ...any) error {
	return wire.Fail(wire.Invalid, format, arguments...)
}

// partsOf is a name in an archive, part by part; none: the root. A slash at its beginning is nothing to archives.
func partsOf(name string) ([]string, error) {
	if len(name) > longestPath || strings.ContainsRune(name, 0) {
		return nil, invalid("a layer has a name of %d bytes, or one with a NUL; %d are allowed: %.100q", len(name), longestPath, name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return nil, invalid("a layer has the name %.200q; '..' is not allowed", name)
		case len(part) > longestName:
			return nil, invalid("a layer has a name with a part of %d bytes; %d are allowed: %.100q", len(part), longestName, name)
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) > deepest {
		return nil, invalid("a layer has a name of %d parts; %d are allowed: %.100q", len(parts), deepest, name)
	}
	return parts, nil
}

// resolve finds the directory that a name leads to. Symlinks on the way are followed as in a root of their own: what
// leads out of it leads to the root. What is missing is made if `layer` is not negative, else nil is the answer.
func (t *Tree) resolve(parts []string, layer int) (*Inode, error) {
	links := 0
	way := []*Inode{t.Root}
	for len(parts) > 0 {
		if err := t.step(1); err != nil {
			return nil, err
		}
		part := parts[0]
		parts = parts[1:]
		here := way[len(way)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			way = way[:max(len(way)-1, 1)]
			continue
		}
		next := here.Children[part]
		switch {
		case next == nil && layer < 0:
			return nil, nil
		case next == nil:
			next = newDirectory(layer)
			if err := t.add(here, part, next); err != nil {
				return nil, err
			}
		case next.Kind == Symlink:
			if links++; links > mostLinks {
				return nil, invalid("a layer has something behind a symlink that leads to itself: %.200q", part)
			}
			if strings.HasPrefix(next.Target, "/") {
				way = way[:1]
			}
			parts = append(strings.Split(next.Target, "/"), parts...)
			continue
		case next.Kind != Directory && layer < 0:
			return nil, nil
		case next.Kind != Directory:
			return nil, invalid("a layer has something in %.200q, which is no directory", part)
		}
		if len(way) > deepest {
			return nil, invalid("a layer has a name of more than %d parts", deepest)
		}
		way = append(way, next)
	}
	if layer >= 0 {
		for _, directory := range way {
			directory.layer = layer
		}
	}
	return way[len(way)-1], nil
}
