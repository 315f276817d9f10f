package serve

import (
	"bytes"
	"io"
	"os"
	"testing"
)

func queue(t *testing.T) (*stdinQueue, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	return newStdinQueue(writer), reader
}

func TestInputArrivesWholeAndIsGrantedAgain(t *testing.T) {
	stdin, command := queue(t)
	granted := make(chan int, 1000)
	go stdin.drain(func(bytes int) { granted <- bytes })
	read := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(command)
		read <- all
	}()
	sent, window := bytes.Repeat([]byte("0123456789"), 100_000), stdinWindow
	for rest := sent; len(rest) > 0; {
		if window == 0 {
			window += <-granted
		}
		size := min(len(rest), window, 10_000)
		if err := stdin.push(rest[:size]); err != nil {
			t.Fatal(err)
		}
		rest, window = rest[size:], window-size
	}
	stdin.close()
	if got := <-read; !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d arrived, or not the same", len(got), len(sent))
	}
}

func TestMoreThanTheWindowIsRefused(t *testing.T) {
	stdin, _ := queue(t)
	if err := stdin.push(make([]byte, stdinWindow)); err != nil {
		t.Fatal(err)
	}
	if err := stdin.push([]byte{0}); err == nil {
		t.Error("taken")
	}
}

func TestWhatABrokenPipeDoesNotTakeIsGrantedAllTheSame(t *testing.T) {
	stdin, command := queue(t)
	command.Close()
	granted := make(chan int, 1)
	go stdin.drain(func(bytes int) { granted <- bytes })
	for range 10 {
		if err := stdin.push(make([]byte, stdinWindow)); err != nil {
			t.Fatal(err)
		}
		if got := <-granted; got != stdinWindow {
			t.Fatalf("%d bytes granted", got)
		}
	}
	stdin.close()
}

func TestAnAbandonedQueueEndsThoughNobodyReads(t *testing.T) {
	stdin, _ := queue(t)
	ended := make(chan struct{})
	go func() {
		stdin.drain(func(int) {})
		close(ended)
	}()
	if err := stdin.push(make([]byte, stdinWindow)); err != nil { // a pipe holds 64 KiB
		t.Fatal(err)
	}
	stdin.abandon()
	<-ended
}
