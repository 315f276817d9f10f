package ext4

import (
	"encoding/binary"
	"strings"

	"ingle.dev/image_puller/internal/layers"
)

const (
	xattrMagic  = 0xEA020000
	inlineIndex = 7
	inlineName  = "data"
)

var prefixes = map[byte]string{
	1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system.",
	8: "system.richacl",
}

// xattrs are those of an inode, and where the rest of its content is if that is among them.
func (f *fileSystem) xattrs(r raw) (map[string]string, *layers.Piece, error) {
	found := attributes{system: f}
	if begin := r.extra(); begin+4 <= int64(len(r.content)) && little.Uint32(r.content[begin:]) == xattrMagic {
		if err := found.entries(r.content[begin+4:], r.content[begin+4:], r.at+begin+4); err != nil {
			return nil, nil, err
		}
	}
	if block := r.attributes(); block != 0 {
		content, err := f.readBlock(block)
		if err != nil {
			return nil, nil, err
		}
		if little.Uint32(content) != xattrMagic {
			return nil, nil, invalid("its extended attributes can't be read")
		}
		if err := found.entries(content[32:], content, int64(block)*f.block); err != nil {
			return nil, nil, err
		}
	}
	return found.xattrs, found.inline, nil
}

type attributes struct {
	system *fileSystem
	xattrs map[string]string
	inline *layers.Piece
}

// entries reads a list of them, whose values are in `values`, which begins at `at` of the file.
func (a *attributes) entries(list []byte, values []byte, at int64) error {
	for len(list) >= 16 && little.Uint32(list) != 0 {
		named := int(list[0])
		if 16+named > len(list) {
			return invalid("its extended attributes can't be read")
		}
		index, name := list[1], string(list[16:16+named])
		offset, inode, size := int(little.Uint16(list[2:])), little.Uint32(list[4:]), little.Uint32(list[8:])
		list = list[min(len(list), 16+(named+3)&^3):]
		if size > layers.MostXattrsInOne {
			return invalid("it has an extended attribute of %d bytes", size)
		}
		if index == inlineIndex && name == inlineName {
			if inode != 0 || offset+int(size) > len(values) {
				return invalid("it lacks a part of its content")
			}
			a.inline = &layers.Piece{Source: Source, Offset: at + int64(offset), Length: int64(size)}
			continue
		}
		var value []byte
		switch {
		case inode != 0:
			var err error
			if value, err = a.valueIn(inode, int64(size)); err != nil {
				return err
			}
		case size == 0:
		case offset+int(size) > len(values):
			return invalid("its extended attributes can't be read")
		default:
			value = values[offset : offset+int(size)]
		}
		if err := a.add(index, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (a *attributes) add(index byte, name string, value []byte) error {
	prefix, known := prefixes[index]
	whole := prefix + name
	if !known || name == "" && !strings.HasPrefix(prefix, "system.") || strings.ContainsRune(whole, 0) {
		return invalid("it has an extended attribute of an unknown kind")
	}
	if strings.HasPrefix(prefix, "system.posix_acl_") {
		var err error
		if value, err = accessList(value); err != nil {
			return err
		}
	}
	if a.xattrs == nil {
		a.xattrs = map[string]string{}
	}
	a.xattrs[whole] = string(value)
	return nil
}

// valueIn reads one that is so long that it has an inode of its own.
func (a *attributes) valueIn(number uint32, size int64) ([]byte, error) {
	r, err := a.system.raw(number)
	if err != nil {
		return nil, err
	}
	if r.size() < size || r.flags()&flagInline != 0 {
		return nil, invalid("its extended attributes can't be read")
	}
	pieces, err := a.system.pieces(r, nil)
	if err != nil {
		return nil, err
	}
	value := make([]byte, size)
	for _, piece := range pieces {
		if piece.At < size {
			length := min(piece.Length, size-piece.At)
			if err := a.system.read(value[piece.At:piece.At+length], piece.Offset); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// accessList makes of an access list as ext4 has it what programs see: entries are all of one length.
func accessList(stored []byte) ([]byte, error) {
	const (
		storedVersion, version = 1, 2
		user, group            = 0x02, 0x08
		nobody                 = 0xFFFFFFFF
	)
	if len(stored) < 4 || little.Uint32(stored) != storedVersion {
		return nil, invalid("its access list can't be read")
	}
	made := binary.LittleEndian.AppendUint32(nil, version)
	for rest := stored[4:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, invalid("its access list can't be read")
		}
		tag, id := little.Uint16(rest), uint32(nobody)
		made = append(made, rest[:4]...)
		rest = rest[4:]
		if tag == user || tag == group {
			if len(rest) < 4 {
				return nil, invalid("its access list can't be read")
			}
			id, rest = little.Uint32(rest), rest[4:]
		}
		made = binary.LittleEndian.AppendUint32(made, id)
	}
	return made, nil
}
