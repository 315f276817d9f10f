#!/usr/bin/env bash
# Builds the guest agent, a static Linux binary, into build/ingle-agent-ARCH.
#   scripts/build_agent.sh amd64|arm64
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
mkdir -p build
CGO_ENABLED=0 GOOS=linux GOARCH=$1 scripts/go.sh build -C guest_agent -trimpath \
  -ldflags "-s -w -X main.version=$version" -o "../build/ingle-agent-$1" ./cmd/ingle-agent
