#!/usr/bin/env bash
# The tests on a real Kubernetes: looks at the image, then brings Kubernetes up, applies the overlays and disturbs what
# runs. Arguments are for cargo. Where it can't run, it says so and passes, unless CI is set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

skip() {
  echo "test-k8s: skipped all of it: $*"
  [ -z "${CI-}" ] || exit 1
  exit 0
}
[ "$(uname -s)" = Linux ] || skip "it needs Linux"
[ "$(id -u)" = 0 ] || skip "it makes network namespaces and containers, so it must be root"
type -P apt-get >/dev/null || skip "it makes its images from Debian's packages"
type -P go >/dev/null || skip "it builds Kubernetes with Go, which is not here"

tests/tools/install.sh tests
tests/tools/install.sh k8s
cargo build "$@" -p tao -p tao-k8s --bins
cargo test "$@" -p tao --test e2e --no-run --quiet
profile=debug
flags=()
for argument in "$@"; do
  [ "$argument" != --release ] || profile=release
  flags+=("--cargo=$argument")
done
tests/tools/image.sh check "${CARGO_TARGET_DIR:-target}/$profile/tao"

# The version before, which this one runs beside: as processes, and in the cluster, which is upgraded and rolled back. Without it the
# rest is tested: where the history is cut off; a clone that has all of it has that commit, too.
previous=()
if program=$(tests/tools/previous.sh "${CARGO_TARGET_DIR:-target}/previous" "$@"); then
  previous=(--previous "$program")
  TAO_PREVIOUS=$program cargo test "$@" -p tao --test e2e versions
else
  [ "$?" = 3 ] && [ "$(git rev-parse --is-shallow-repository 2>/dev/null)" != false ] || exit 1
  echo "test-k8s: skipped neighbouring versions, upgrade and rollback"
fi
cargo run "$@" --quiet -p tao-k8s -- --required "${previous[@]}" "${flags[@]}" test
