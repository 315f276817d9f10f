package files

import (
	"archive/tar"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// attributePrefix begins the PAX record of an extended attribute, as star, GNU tar and libarchive have it.
	attributePrefix = "SCHILY.xattr."
	// maxAttributeBytes bounds what one file's attributes add to an archive; readers take a header of 1 MiB at most.
	maxAttributeBytes = 256 << 10
)

// A PAX keyword ends with '='; GNU tar escapes it in names the same way.
var (
	escapeAttribute   = strings.NewReplacer("%", "%25", "=", "%3D")
	unescapeAttribute = strings.NewReplacer("%25", "%", "%3D", "=")
)

// carried tells whether an attribute belongs to a copy. What the thread's file system ids don't limit is limited here:
// setfsuid(2) leaves the capabilities with which the kernel would let us read and set more than the user may.
func carried(name string) bool {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	if strings.HasPrefix(name, "user.") {
		return true
	}
	fsuid, _ := unix.SetfsuidRetUid(-1)
	return fsuid == 0 && (name == "security.capability" || strings.HasPrefix(name, "trusted."))
}

// readAttributes answers an open file's attributes as PAX records, and how many of them there is no room for.
func readAttributes(file int) (records map[string]string, leftOut uint64, err error) {
	list, err := grown(func(buffer []byte) (int, error) { return unix.Flistxattr(file, buffer) })
	if err == unix.EOPNOTSUPP || len(list) == 0 {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	records = map[string]string{}
	room := maxAttributeBytes
	for _, name := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value, err := grown(func(buffer []byte) (int, error) { return unix.Fgetxattr(file, name, buffer) })
		if err == unix.ENODATA { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if room < len(name)+len(value) {
			leftOut++
			continue
		}
		room -= len(name) + len(value)
		records[attributePrefix+escapeAttribute.Replace(name)] = string(value)
	}
	return records, leftOut, nil
}

// grown asks for the size first, and again when it has grown meanwhile.
func grown(get func(buffer []byte) (int, error)) ([]byte, error) {
	for {
		size, err := get(nil)
		if size == 0 || err != nil {
			return nil, err
		}
		buffer := make([]byte, size)
		size, err = get(buffer)
		if err == unix.ERANGE {
			continue
		}
		return buffer[:max(size, 0)], err
	}
}

// writeAttributes sets the attributes of a header, and counts those that the file system, or the kernel for this user,
// will not take.
func writeAttributes(file int, header *tar.Header) (leftOut uint64, err error) {
	for key, value := range header.PAXRecords {
		escaped, found := strings.CutPrefix(key, attributePrefix)
		if !found {
			continue
		}
		name := unescapeAttribute.Replace(escaped)
		if !carried(name) {
			leftOut++
			continue
		}
		switch err := unix.Fsetxattr(file, name, []byte(value), 0); err {
		case nil:
		case unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.E2BIG, unix.ERANGE, unix.EINVAL:
			leftOut++
		default:
			return leftOut, err
		}
	}
	return leftOut, nil
}
