#!/usr/bin/env bash
# Builds one of our programs in Go, a static Linux binary, into build/PROGRAM-ARCH.
#   scripts/build_go.sh ingle-agent|ingle-image-puller amd64|arm64
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A modules=([ingle-agent]=guest_agent [ingle-image-puller]=image_puller)
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' api_server/ingle/version.py)
mkdir -p build
CGO_ENABLED=0 GOOS=linux GOARCH=$2 scripts/go.sh build -C "${modules[$1]}" -trimpath \
  -ldflags "-s -w -X main.version=$version" -o "../build/$1-$2" "./cmd/$1"
