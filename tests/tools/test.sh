#!/usr/bin/env bash
# Checks the manifests, then builds and runs every test of the workspace, all of it even if some fail, and ends with one
# line that sums up. Arguments are for cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

output=$(mktemp)
trap 'rm -f "$output"' EXIT

status=0
.tools/python/bin/python -B tests/tools/manifests || status=$?

# Built apart, so that a cold build shows its progress and the tests' time is their own.
cargo build --workspace --bins --tests "$@"
built=$SECONDS

cargo test --workspace --quiet --no-fail-fast "$@" 2>&1 | tee "$output" || status=$?

echo "built in ${built}s, ran in $((SECONDS - built))s"
# Cargo says for each program: test result: ok. 9 passed; 0 failed; 1 ignored; …
awk '/^test result: / {
  for (i = 2; i <= NF; i++) {
    if ($i ~ /^passed/) passed += $(i - 1); if ($i ~ /^failed/) failed += $(i - 1); if ($i ~ /^ignored/) ignored += $(i - 1)
  }
} END { printf "tests: %d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$output"
exit "$status"
