module ingle.dev/guest_agent

go 1.25.0

require (
	github.com/charmbracelet/x/ansi v0.11.7
	golang.org/x/sys v0.40.0
	google.golang.org/protobuf v1.36.12
)

tool google.golang.org/protobuf/cmd/protoc-gen-go
