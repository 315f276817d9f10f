// Command ingle-agent is what the host talks to in a guest. As /init of an initramfs it is PID 1 of a virtual machine;
// with --listen it serves the same protocol as an ordinary process.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/boot"
	"ingle.dev/guest_agent/internal/launch"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/serve"
)

// version is set by the linker.
var version = "unversioned"

// garbagePercent is how much memory may be garbage, in proportion to what is in use: less than Go's 100, since there is
// little work to collect it, and the memory is the guest's.
const garbagePercent = 25

func main() {
	if os.Args[0] == launch.Name {
		launch.Run()
	}
	debug.SetGCPercent(garbagePercent)
	if os.Getpid() == 1 {
		boot.Run(version)
	}
	if boot.IsComeback(os.Args[0]) {
		fmt.Fprintf(os.Stderr, "ingle-agent: %v\n", boot.ComeBack())
		os.Exit(1)
	}
	if ended, err := boot.End(os.Args[0]); ended {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	listen := flag.String("listen", "", "serve on `unix:PATH`")
	tokenFile := flag.String("token-file", "", "the `file` whose content callers must send")
	helloTimeout := flag.Duration("hello-timeout", serve.DefaultHelloTimeout, "how long a caller may take to say what it wants")
	showVersion := flag.Bool("version", false, "print the version")
	besideInit := flag.Bool(boot.BesideInit, false, "go on for PID 1, which starts this and becomes the image's own init")
	flag.Parse()
	var err error
	switch {
	case *showVersion:
		fmt.Println(version)
	case *besideInit:
		err = boot.ServeBesideInit(version)
	default:
		err = serveProcess(*listen, *tokenFile, *helloTimeout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "ingle-agent: %v\n", err)
		os.Exit(1)
	}
}

// serveProcess serves until a caller asks for a shutdown.
func serveProcess(listen, tokenFile string, helloTimeout time.Duration) error {
	path, found := strings.CutPrefix(listen, "unix:")
	if !found || path == "" || flag.NArg() > 0 {
		return errors.New("use --listen unix:PATH (without it, this is the init of a virtual machine)")
	}
	var token []byte
	if tokenFile != "" {
		var err error
		if token, err = os.ReadFile(tokenFile); err != nil {
			return err
		}
	}
	// Orphans come to us, as they do to PID 1.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	reaper := reap.New()
	server := &serve.Server{
		Version:      version,
		Token:        token,
		HelloTimeout: helloTimeout,
		Reaper:       reaper,
		Shutdown: func() {
			reaper.SignalAll(syscall.SIGKILL)
			_ = listener.Close()
		},
	}
	fmt.Println("ingle-agent ready")
	return server.Serve(listener)
}
