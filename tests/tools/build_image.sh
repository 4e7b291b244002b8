#!/usr/bin/env bash
# Builds the container image under the name that is given, with docker, podman or buildah, whichever is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=${1:?usage: tests/tools/build_image.sh NAME}
for program in docker podman buildah; do
  ! type -P "$program" >/dev/null || break
done
type -P "$program" >/dev/null || { echo "image: please install docker, podman or buildah" >&2; exit 1; }
exec "$program" build --file deploy/Dockerfile --tag "$name" \
  --build-arg VERSION="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)" \
  --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" .
