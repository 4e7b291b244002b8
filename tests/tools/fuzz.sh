#!/usr/bin/env bash
# Runs fuzz targets (tests/fuzz) under libFuzzer, one after the other, and prints a line for each: executions, coverage, crashes.
#
#   tests/tools/fuzz.sh RUNS [TARGET…]      every target unless some are named
#
# On a stable compiler without a sanitizer; with FUZZ_TOOLCHAIN=nightly FUZZ_SANITIZER=address it is run with ASan. What is found grows in
# tests/fuzz/libfuzzer/corpus, which git ignores; an input that crashes stays in tests/fuzz/libfuzzer/artifacts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ $# -ge 1 ] || { echo "usage: tests/tools/fuzz.sh RUNS [TARGET…]" >&2; exit 2; }
runs=$1
shift
fuzz=(cargo ${FUZZ_TOOLCHAIN:++"$FUZZ_TOOLCHAIN"} fuzz)
options=(--fuzz-dir tests/fuzz/libfuzzer -s "${FUZZ_SANITIZER:-none}" --target-dir "${CARGO_TARGET_DIR:-target}/fuzz")
corpus=tests/fuzz/libfuzzer/corpus

# Also the list of targets.
targets=$(cargo run -q -p tao-fuzz -- "$corpus")
[ $# -eq 0 ] || targets=$*

# All at once: each by itself would say what the others have said.
"${fuzz[@]}" build "${options[@]}"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
printf '%-14s %12s %10s %8s\n' target executions coverage seconds
for target in $targets; do
  begun=$SECONDS
  # Inputs of a pipeline are longer than libFuzzer would try by itself.
  if "${fuzz[@]}" run "${options[@]}" "$target" -- -runs="$runs" -max_len=4096 -timeout=10 -rss_limit_mb=2048 >"$log" 2>&1; then
    awk -v target="$target" -v seconds="$((SECONDS - begun))" '
      /^#[0-9]+/ { for (i = 2; i <= NF; i++) if ($i == "cov:") cov = $(i + 1) }
      /^Done [0-9]+ runs/ { runs = $2 }
      END { printf "%-14s %12d %10d %8d\n", target, runs, cov, seconds }' "$log"
  else
    failed=1
    printf '%-14s FAILED\n' "$target"
    tail -n 40 "$log"
  fi
done
exit "$failed"
