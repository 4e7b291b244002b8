#!/usr/bin/env bash
# Installs gRPC and the generator into node_modules/, makes gen/ with the stubs, and compiles to dist/. Needs buf and Node.js 20.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

npm ci --silent --no-audit --no-fund
buf generate
npx tsc
