#!/usr/bin/env bash
# Makes gen/ with the stubs, by plugins of the versions that go.mod names, and builds ./feed. Needs buf and Go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

buf generate
go build -o feed .
