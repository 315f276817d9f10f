// Command floor_agent is the least agent that Go's standard library makes: no greeting, nothing parsed, nothing checked.
//
//	floor_agent SOCKET
//
// A caller sends one frame, of a type that says what it wants, and gets one that is empty or has the file's content.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

const (
	run   = 1 // the program that the payload names
	write = 2 // a file: path, NUL, content
	read  = 3 // a file: path
)

func main() {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for {
		stream, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go answer(stream)
	}
}

func answer(stream net.Conn) {
	defer stream.Close()
	var header [5]byte
	if _, err := io.ReadFull(stream, header[:]); err != nil {
		return
	}
	payload := make([]byte, binary.BigEndian.Uint32(header[:])-1)
	if _, err := io.ReadFull(stream, payload); err != nil {
		return
	}
	content, err := do(header[4], payload)
	if err != nil {
		panic(err)
	}
	said := binary.BigEndian.AppendUint32(nil, uint32(len(content))+1)
	_, _ = stream.Write(append(append(said, header[4]), content...))
}

func do(what byte, payload []byte) (content []byte, err error) {
	switch what {
	case run:
		return runProgram(string(payload))
	case read:
		return os.ReadFile(string(payload))
	}
	for end, char := range payload {
		if char == 0 {
			return nil, replace(string(payload[:end]), payload[end+1:])
		}
	}
	return nil, io.ErrUnexpectedEOF
}

// runProgram takes its two outputs apart, as whoever sends them in frames has to.
func runProgram(name string) ([]byte, error) {
	command := exec.Command(name)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	said := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, stderr)
		said <- err
	}()
	content, err := io.ReadAll(stdout)
	if err != nil {
		return nil, err
	}
	if err := <-said; err != nil {
		return nil, err
	}
	return content, command.Wait()
}

// replace writes a file as a whole or not at all, and has it and its name on the disk.
func replace(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), "")
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}
