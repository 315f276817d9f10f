package session

import (
	"bytes"
	"math/rand"
	"testing"
)

func content(r *ring) []byte {
	all := make([]byte, scrollback)
	return all[:r.read(r.start(), all)]
}

func TestARingKeepsTheEndOfWhatWasWritten(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	r, written := &ring{}, []byte(nil)
	for _, size := range []int{0, 1, 100, scrollback - 101, 1, scrollback, scrollback + 1, 3 * scrollback, 7} {
		piece := make([]byte, size)
		random.Read(piece)
		r.write(piece)
		written = append(written, piece...)
		if want := written[max(0, len(written)-scrollback):]; !bytes.Equal(content(r), want) {
			t.Fatalf("after %d bytes: not the last ones", len(written))
		}
		if r.end != int64(len(written)) {
			t.Fatalf("%d bytes written, counted as %d", len(written), r.end)
		}
	}
}

func TestAnyWayOfCuttingGivesTheSame(t *testing.T) {
	random := rand.New(rand.NewSource(2))
	all := make([]byte, 3*scrollback+17)
	random.Read(all)
	r := &ring{}
	for rest := all; len(rest) > 0; {
		size := min(len(rest), random.Intn(10_000))
		r.write(rest[:size])
		rest = rest[size:]
	}
	if !bytes.Equal(content(r), all[len(all)-scrollback:]) {
		t.Error("not the last bytes")
	}
}

func TestReadingTakesNoMoreThanFits(t *testing.T) {
	r := &ring{}
	r.write([]byte("0123456789"))
	buffer := make([]byte, 4)
	if size := r.read(3, buffer); string(buffer[:size]) != "3456" {
		t.Errorf("read %q", buffer[:size])
	}
	if size := r.read(8, buffer); string(buffer[:size]) != "89" {
		t.Errorf("read %q", buffer[:size])
	}
}

func BenchmarkRing(b *testing.B) {
	r, piece := &ring{}, make([]byte, scrollback)
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		r.write(piece)
	}
}
