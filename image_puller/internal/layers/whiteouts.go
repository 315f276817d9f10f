package layers

import "strings"

func (t *Tree) whiteOut(parts []string, name string, rest string) error {
	switch {
	case name == opaque:
	case strings.HasPrefix(name, others):
		return nil
	case rest == "" || rest == "." || rest == "..":
		return invalid("layer %d has the whiteout %.200q, of nothing that can be", t.layer+1, name)
	}
	parent, err := t.resolve(parts, -1)
	if err != nil || parent == nil {
		return err
	}
	if name == opaque {
		return t.forget(parent)
	}
	former := parent.Children[rest]
	switch {
	case former == nil:
	case !t.has(parent, rest, former):
		t.remove(parent, rest)
	case former.Kind == Directory:
		return t.forget(former)
	}
	return nil
}

// has tells whether this layer has a name, or something below it.
func (t *Tree) has(parent *Inode, name string, inode *Inode) bool {
	if inode.Kind == Directory {
		return inode.layer == t.layer
	}
	return t.seen[parent][name]
}

// forget removes what lower layers have in a directory. Once a layer has, there is nothing of them there any more.
func (t *Tree) forget(directory *Inode) error {
	if t.forgotten[directory] {
		return nil
	}
	t.forgotten[directory] = true
	if err := t.step(len(directory.Children)); err != nil {
		return err
	}
	for name, child := range directory.Children {
		if !t.has(directory, name, child) {
			t.remove(directory, name)
		} else if child.Kind == Directory {
			if err := t.forget(child); err != nil {
				return err
			}
		}
	}
	return nil
}
