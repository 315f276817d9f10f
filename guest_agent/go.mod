module ingle.dev/guest_agent

go 1.24.0

require (
	golang.org/x/sys v0.40.0
	google.golang.org/protobuf v1.36.12
)

tool google.golang.org/protobuf/cmd/protoc-gen-go
