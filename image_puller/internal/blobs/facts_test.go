package blobs

import (
	"io/fs"
	"syscall"
)

func blocksOf(facts fs.FileInfo) int64 { return facts.Sys().(*syscall.Stat_t).Blocks * 512 }
