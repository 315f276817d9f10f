#!/usr/bin/env bash
# Generates the Python messages, gRPC stubs and type stubs, and the Go messages, from proto/. The output is committed;
# `make lint` generates it anew elsewhere and compares.
#   scripts/generate_proto.sh [PYTHON_OUT [GO_OUT]]
set -euo pipefail
cd "$(dirname "$0")/.."
python_out=${1:-proto/gen} go_out=${2:-guest_agent}
mkdir -p "$python_out" "$go_out"
venv=$PWD/.venv
PATH="$venv/bin:$PATH" python -m grpc_tools.protoc -I proto \
  --python_out="$python_out" --mypy_out="quiet:$python_out" \
  proto/ingle/v1/*.proto proto/ingle/helper/v1/*.proto proto/ingle/agent/v1/*.proto
PATH="$venv/bin:$PATH" python -m grpc_tools.protoc -I proto \
  --grpc_python_out="$python_out" --mypy_grpc_out="quiet:$python_out" \
  proto/ingle/v1/*.proto proto/ingle/helper/v1/*.proto
touch "$python_out/ingle/v1/py.typed" # clients' type checkers look into it

# protoc-gen-go is pinned by guest_agent/go.mod.
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
scripts/go.sh build -C guest_agent -o "$plugins/" google.golang.org/protobuf/cmd/protoc-gen-go
"$venv/bin/python" -m grpc_tools.protoc -I proto --plugin="$plugins/protoc-gen-go" \
  --go_out="$go_out" --go_opt=module=ingle.dev/guest_agent proto/ingle/agent/v1/*.proto
