// Package wire is what the server and this program say to each other: an order on stdin, and lines of JSON on stdout.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
)

const longestOrder = 1 << 20

// Order is what to pull. It comes on stdin, where nobody but the server and this process sees the logins.
type Order struct {
	// Sent is an archive with the image; empty: a registry has it.
	Sent string `json:"sent"`
	// Reference is the image's: HOST/REPOSITORY:TAG or HOST/REPOSITORY@DIGEST; or what an archive calls it, which may be
	// empty where that has one.
	Reference string `json:"reference"`
	// Architecture is Go's name of the guest's: amd64 or arm64.
	Architecture string `json:"architecture"`
	// Logins by host, docker.io for Docker's.
	Logins map[string]Login `json:"logins"`
	// Mirrors are asked first, in order: by host, HOST[/PREFIX] of each.
	Mirrors map[string][]string `json:"mirrors"`
	// Cache is the directory of layers; it is made if there is none.
	Cache string `json:"cache"`
	// Archive is the new file that becomes the tar archive of the root file system.
	Archive string `json:"archive"`
	// MostBytes is how much the layers may hold together.
	MostBytes int64 `json:"most_bytes"`
	// MostFiles is how many files, directories and links they may.
	MostFiles int `json:"most_files"`
	// StallSeconds is for how long a registry may say nothing.
	StallSeconds int `json:"stall_seconds"`
}

// Export is what to write: an image here as an archive.
type Export struct {
	// Image is the ext4 file.
	Image string `json:"image"`
	// Archive is the new file.
	Archive string `json:"archive"`
	// Name is the image's, in full; empty: it has none.
	Name string `json:"name"`
	// Architecture is Go's name of the image's.
	Architecture string `json:"architecture"`
	// CreatedSeconds since 1970 is when it was made.
	CreatedSeconds int64  `json:"created_seconds"`
	Config         Config `json:"config"`
	// MostBytes and MostFiles are how much may be in it.
	MostBytes int64 `json:"most_bytes"`
	MostFiles int   `json:"most_files"`
}

// ReadExport takes that.
func ReadExport(from io.Reader) (Export, error) {
	var order Export
	if err := read(from, &order); err != nil {
		return Export{}, err
	}
	if order.MostBytes <= 0 || order.MostFiles <= 0 || order.Image == "" || order.Archive == "" {
		return Export{}, errors.New("the order on stdin lacks a bound or a path")
	}
	return order, nil
}

func read(from io.Reader, order any) error {
	decoder := json.NewDecoder(io.LimitReader(from, longestOrder))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(order); err != nil {
		return fmt.Errorf("the order on stdin: %w", err)
	}
	return nil
}

// Login is who somebody is to a registry, as docker keeps it.
type Login struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identity_token"`
}

// Read takes the order.
func Read(from io.Reader) (Order, error) {
	var order Order
	if err := read(from, &order); err != nil {
		return Order{}, err
	}
	if order.MostBytes <= 0 || order.MostFiles <= 0 || order.StallSeconds <= 0 || order.Cache == "" || order.Archive == "" {
		return Order{}, errors.New("the order on stdin lacks a bound or a path")
	}
	return order, nil
}

// Line is one line on stdout: one of them is set.
type Line struct {
	Layer   *Layer   `json:"layer,omitempty"`
	Note    string   `json:"note,omitempty"`
	Image   *Image   `json:"image,omitempty"`
	Problem *Problem `json:"problem,omitempty"`
}

// State is how far a layer has come.
type State string

// A layer is Cached, or Fetching, then Unpacking, then Ready.
const (
	Cached    State = "cached"
	Fetching  State = "fetching"
	Unpacking State = "unpacking"
	Ready     State = "ready"
)

// Layer is progress.
type Layer struct {
	// Number counts from 1, the lowest, to Count.
	Number int    `json:"number"`
	Count  int    `json:"count"`
	Digest string `json:"digest"`
	State  State  `json:"state"`
	// Bytes of Size are here, as they are compressed.
	Bytes int64 `json:"bytes"`
	Size  int64 `json:"size"`
}

// Image is the last line of a pull that went well.
type Image struct {
	// Digest is the manifest's, of this architecture.
	Digest       string `json:"digest"`
	ConfigDigest string `json:"config_digest"`
	Config       Config `json:"config"`
	// Name is what an archive calls it.
	Name string `json:"name"`
	// Fetched is how many bytes came from a registry this time.
	Fetched int64 `json:"fetched"`
}

// Config is what an image says of how it is to be run.
type Config struct {
	Entrypoint   []string          `json:"entrypoint"`
	Command      []string          `json:"command"`
	Environment  []string          `json:"environment"`
	User         string            `json:"user"`
	Directory    string            `json:"directory"`
	ExposedPorts []string          `json:"exposed_ports"`
	StopSignal   string            `json:"stop_signal"`
	Labels       map[string]string `json:"labels"`
	Healthcheck  *Healthcheck      `json:"healthcheck,omitempty"`
}

// Healthcheck is docker's: Test begins with NONE, CMD or CMD-SHELL; 0 means that the image doesn't say.
type Healthcheck struct {
	Test                    []string `json:"test"`
	IntervalMilliseconds    int64    `json:"interval_milliseconds"`
	TimeoutMilliseconds     int64    `json:"timeout_milliseconds"`
	StartPeriodMilliseconds int64    `json:"start_period_milliseconds"`
	Retries                 int      `json:"retries"`
}

// Reason is what kind of problem it is.
type Reason string

// What can go wrong, by whose doing.
const (
	BadReference Reason = "bad-reference" // of who named the image
	NotFound     Reason = "not-found"     // no such image, or none of this architecture
	Denied       Reason = "denied"        // the registry wants another login
	Unreachable  Reason = "unreachable"   // the registry does not answer, or breaks off
	Busy         Reason = "busy"          // the registry wants fewer requests
	Invalid      Reason = "invalid"       // the image is broken, hostile, or beyond a bound
	DiskFull     Reason = "disk-full"     // of this host
	Cancelled    Reason = "cancelled"     // by SIGTERM
	Internal     Reason = "internal"      // ours
)

// Problem is the last line of a pull that failed; it is an error here, too.
type Problem struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
}

func (p *Problem) Error() string { return p.Message }

// Fail makes a Problem, of at most 2000 bytes and nothing that a terminal would obey, whoever has written what is in it.
func Fail(reason Reason, format string, arguments ...any) *Problem {
	const longest = 2000
	message := strings.Map(printable, fmt.Sprintf(format, arguments...))
	if len(message) > longest {
		message = message[:longest] + "…"
	}
	return &Problem{reason, message}
}

func printable(char rune) rune {
	switch {
	case unicode.IsPrint(char):
		return char
	case unicode.IsSpace(char):
		return ' '
	}
	return unicode.ReplacementChar
}

// Teller writes lines.
type Teller struct {
	mutex   sync.Mutex
	encoder *json.Encoder
}

// NewTeller writes them to a stream.
func NewTeller(to io.Writer) *Teller { return &Teller{encoder: json.NewEncoder(to)} }

// Tell writes one. Nobody reading any more is no matter: who started this ends it.
func (t *Teller) Tell(line Line) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	_ = t.encoder.Encode(line)
}
