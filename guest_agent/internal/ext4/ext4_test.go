package ext4

import (
	"encoding/binary"
	"testing"
)

func superblock(blocks uint64, shift uint32, incompat uint32) []byte {
	super := make([]byte, superblockSize)
	binary.LittleEndian.PutUint16(super[offsetMagic:], magic)
	binary.LittleEndian.PutUint32(super[offsetBlocksLow:], uint32(blocks))
	binary.LittleEndian.PutUint32(super[offsetBlocksHigh:], uint32(blocks>>32))
	binary.LittleEndian.PutUint32(super[offsetBlockSize:], shift)
	binary.LittleEndian.PutUint32(super[offsetIncompat:], incompat)
	return super
}

func TestGrowth(t *testing.T) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	for _, test := range []struct {
		name   string
		super  []byte
		device uint64
		want   uint64
	}{
		{"fits exactly", superblock(256, 2, 0), mib, 0},
		{"less than a block more", superblock(256, 2, 0), mib + 4095, 0},
		{"a block more", superblock(256, 2, 0), mib + 4096, 257},
		{"device smaller", superblock(512, 2, 0), mib, 0},
		{"1 KiB blocks", superblock(1024, 0, 0), gib, 1 << 20},
		{"64 bit", superblock(32*tib/4096, 2, incompat64Bit), 32 * tib, 0},
		{"64 bit, grown", superblock(32*tib/4096, 2, incompat64Bit), 33 * tib, 33 * tib / 4096},
		{"high half without the feature is no number", superblock(256|1<<32, 2, 0), 2 * mib, 512},
	} {
		if got, err := growth(test.super, test.device); err != nil || got != test.want {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
}

func TestWhatIsNoExt4IsSaidToBeNone(t *testing.T) {
	for name, super := range map[string][]byte{
		"zeros":             make([]byte, superblockSize),
		"absurd block size": superblock(1, 60, 0),
	} {
		if _, err := growth(super, 1<<30); err == nil {
			t.Errorf("%s: taken for ext4", name)
		}
	}
}
