package files

import (
	"io"
	"path/filepath"
)

// ReplaceAt is Write for the last component of a path whose directory is held open.
func ReplaceAt(directory int, path string, wanted Attributes, source io.Reader) error {
	return explain(replace(directory, filepath.Base(path), wanted, source), path)
}

// Explain tells by code what the kernel said about a path.
func Explain(err error, path string) error { return explain(err, path) }
