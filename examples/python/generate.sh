#!/usr/bin/env bash
# Makes .venv with gRPC in it, and gen/ with the stubs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt
mkdir -p gen
.venv/bin/python -m grpc_tools.protoc -I ../../proto --python_out=gen --pyi_out=gen --grpc_python_out=gen ../../proto/tao/v1/*.proto
