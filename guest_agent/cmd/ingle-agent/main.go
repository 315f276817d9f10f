// Command ingle-agent is what the host talks to in a guest. As /init of an initramfs it is PID 1 of a virtual machine;
// with --listen it serves the same protocol as an ordinary process.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ingle.dev/guest_agent/internal/agentpb"
	"ingle.dev/guest_agent/internal/boot"
	"ingle.dev/guest_agent/internal/launch"
	"ingle.dev/guest_agent/internal/mux"
	"ingle.dev/guest_agent/internal/reap"
	"ingle.dev/guest_agent/internal/rest"
	"ingle.dev/guest_agent/internal/serve"
)

// version is set by the linker.
var version = "unversioned"

func main() {
	if os.Args[0] == launch.Name {
		launch.Run()
	}
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
	listen := flag.String("listen", "", "serve on `unix:PATH`, or as at a virtio-serial port on device:PATH")
	tokenFile := flag.String("token-file", "", "the `file` whose content callers must send")
	envFile := flag.String("env-file", "", "the `file` with what every command is given: NAME=VALUE, each with a NUL behind it")
	helloTimeout := flag.Duration("hello-timeout", serve.DefaultHelloTimeout, "how long a caller may take to say what it wants")
	pretend := flag.Bool("pretend", false, "take any identity, and change nothing of this machine by it but the token file")
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
		err = serveProcess(*listen, *tokenFile, *envFile, *helloTimeout, *pretend)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "ingle-agent: %v\n", err)
		os.Exit(1)
	}
}

func listenAt(kind, path string) (net.Listener, error) {
	if kind == "unix" {
		return net.Listen("unix", path)
	}
	device, err := mux.OpenDevice(path)
	if err != nil {
		return nil, err
	}
	return mux.Listen(device)
}

// serveProcess serves until a caller asks for a shutdown.
func serveProcess(listen, tokenFile, envFile string, helloTimeout time.Duration, pretend bool) error {
	kind, path, _ := strings.Cut(listen, ":")
	if (kind != "unix" && kind != "device") || path == "" || flag.NArg() > 0 {
		return errors.New("use --listen unix:PATH or device:PATH (without it, this is the init of a virtual machine)")
	}
	var token []byte
	if tokenFile != "" {
		var err error
		if token, err = os.ReadFile(tokenFile); err != nil {
			return err
		}
	}
	environment, err := readEnvironment(envFile)
	if err != nil {
		return err
	}
	// Orphans come to us, as they do to PID 1.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	listener, err := listenAt(kind, path)
	if err != nil {
		return err
	}
	reaper := reap.New()
	server := &serve.Server{
		Version:      version,
		Token:        token,
		Env:          environment,
		HelloTimeout: helloTimeout,
		Reaper:       reaper,
		Pretend:      pretend,
		Sleeper:      &rest.Process{Reaper: reaper},
		Shutdown: func() {
			reaper.SignalAll(syscall.SIGKILL)
			_ = listener.Close()
		},
	}
	if pretend {
		server.RootDevice = "/dev/null" // any size of it will do
	}
	if pretend && tokenFile != "" {
		server.Remember = func(identity *agentpb.GuestIdentity) error { return keepToken(tokenFile, identity.Token) }
	}
	fmt.Println("ingle-agent ready")
	return server.Serve(listener)
}

// readEnvironment reads the variables of a file; none without one.
func readEnvironment(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	environment := make(map[string]string)
	for _, variable := range strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00") {
		if name, value, found := strings.Cut(variable, "="); found {
			environment[name] = value
		}
	}
	return environment, nil
}

// keepToken leaves the token where the one before came from.
func keepToken(file string, token []byte) error {
	if len(token) == 0 {
		return nil
	}
	return os.WriteFile(file, token, 0o600)
}
