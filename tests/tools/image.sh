#!/usr/bin/env bash
# Makes the images that the tests run, with buildah, as root, and without pulling anything:
#
#   tests/tools/image.sh tao BINARY ARCHIVE [NAME]     the final stage of deploy/Dockerfile, with this program in it
#   tests/tools/image.sh postgres ARCHIVE [NAME]       PostgreSQL of this machine, used like the official image
#   tests/tools/image.sh redis ARCHIVE [NAME]          Redis of this machine, likewise
#   tests/tools/image.sh check BINARY                  makes the image of tao, looks at it and runs it
#
# ARCHIVE is an OCI archive: a file for `ctr images import`. BINARY may have its symbols: a stripped copy is packed.
# The base image is made from Debian's packages and stands in for the one that the Dockerfile names. What is kept for
# the next time is in .tools/images, or where TAO_IMAGES says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=${TAO_IMAGES:-$PWD/.tools/images}
# Containers' user: as in deploy/Dockerfile.
NONROOT=65532
MAX_MEGABYTES=60

say() { printf 'image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Runs a command, and shows what it printed only if it fails.
quietly() {
  local output
  output=$("$@" 2>&1 </dev/null) || { printf '%s\n' "$output" >&2; return 1; }
}

# Storage of its own, for this run only: nothing is left in the machine's.
scratch=
ours() { buildah --root "$scratch/storage" --runroot "$scratch/run" --storage-driver vfs "$@"; }

begin() {
  [ "$(id -u)" = 0 ] || fail "must be root"
  local program
  for program in buildah apt-get dpkg-deb strip; do
    type -P "$program" >/dev/null || fail "there is no $program: run tests/tools/install.sh k8s"
  done
  mkdir -p "$work"
  scratch=$(mktemp -d "$work/run.XXXXXX")
  trap end EXIT
}

container=
end() {
  if [ -n "$container" ]; then
    runc --root "$scratch/runc" delete --force "$container" >/dev/null 2>&1 || true
  fi
  rm -rf "$scratch"
}

# Builds the folder's Dockerfile; the rest of the arguments are buildah's.
build() {
  local folder=$1 name=$2
  shift 2
  quietly ours bud --isolation chroot --format oci --layers=false --tag "$name" "$@" "$folder"
}

push() {
  local name=$1 archive=$2
  mkdir -p "$(dirname "$archive")"
  rm -f "$archive"
  quietly ours push "$name" "oci-archive:$archive:$name"
  say "$name is in $archive, $(($(stat -c %s "$archive") / 1000000)) MB"
}

# Debian's packages, unpacked into a folder.
unpack() {
  local root=$1 package debs=$work/debs
  shift
  mkdir -p "$debs" "$root"
  for package in "$@"; do
    if ! compgen -G "$debs/${package}_*.deb" >/dev/null; then
      # The package lists may be absent or out of date; that is found out by trying.
      (cd "$debs" && { quietly apt-get -qq download "$package" 2>/dev/null || { quietly apt-get -qq update || true
        quietly apt-get -qq download "$package"; }; }) || fail "could not get the package $package"
    fi
    dpkg-deb --extract "$debs/${package}"_*.deb "$root"
  done
}

# Stands in for the Dockerfile's BASE_IMAGE: the C library, CA certificates, a user. The file list that `check` expects
# is this folder's, and the program.
base_root() {
  local root=$1 unpacked=$scratch/packages library
  unpack "$unpacked" libc6 libgcc-s1 ca-certificates
  mkdir -p "$root"/{etc/ssl/certs,home/nonroot,tmp,usr/bin}
  # Debian's links for the places of before /usr was merged.
  for library in lib lib64; do
    [ ! -d "$unpacked/$library" ] || { mkdir -p "$root/usr/$library" && ln -s "usr/$library" "$root/$library"; }
  done
  (cd "$unpacked" && find . \( -name 'ld-linux*.so.*' -o -name 'libc.so.*' -o -name 'libm.so.*' -o -name 'libgcc_s.so.*' \
    -o -name 'libresolv.so.*' -o -name 'libnss_dns.so.*' -o -name 'libnss_files.so.*' -o -name 'libpthread.so.*' \
    -o -name 'libdl.so.*' \) \( -type f -o -type l \) -printf '%P\n') | while read -r library; do
    mkdir -p "$root/usr/$(dirname "${library#usr/}")"
    cp -a "$unpacked/$library" "$root/usr/${library#usr/}"
  done
  find "$unpacked/usr/share/ca-certificates/mozilla" -name '*.crt' -print0 | sort -z | xargs -0 cat \
    >"$root/etc/ssl/certs/ca-certificates.crt"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/home/nonroot:/sbin/nologin\n' \
    "$NONROOT" "$NONROOT" >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:%d:\n' "$NONROOT" >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  chmod 1777 "$root/tmp"
}

build_tao() {
  local binary=$1 name=$2 stage=$scratch/stage base=$scratch/base
  [ -x "$binary" ] || fail "BINARY: $binary is no program: build it with cargo build -p tao"
  base_root "$base/root"
  printf 'FROM scratch\nCOPY root /\n' >"$base/Dockerfile"
  build "$base" localhost/tao-base:tests
  # What the build stage leaves for the final one, made by the command that the Dockerfile has.
  install -D --strip --mode=0555 "$binary" "$stage/out/tao"
  build . "$name" --file deploy/Dockerfile --build-context "build=$stage" \
    --build-arg BASE_IMAGE=localhost/tao-base:tests \
    --build-arg "VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
}

# Copies programs of this machine, with the libraries that they are linked with, to the same places under a folder.
copy_programs() {
  local root=$1 file
  shift
  mkdir -p "$root"/usr/{bin,lib,lib64,sbin}
  for file in bin lib lib64 sbin; do
    [ -e "$root/$file" ] || ln -s "usr/$file" "$root/$file"
  done
  { printf '%s\n' "$@"; ldd "$@" | grep -o '/[^ :)]*' ; } | sort -u | while read -r file; do
    [ -f "$file" ] || continue
    # Where it is without the links of before /usr was merged.
    file=$(realpath "$(dirname "$file")")/$(basename "$file")
    mkdir -p "$root$(dirname "$file")"
    cp -L --preserve=mode,timestamps "$file" "$root$file"
  done
}

# A folder in which the official images' user is known, with a shell for the entrypoint and a few commands.
server_root() {
  local root=$1 user=$2 program
  mkdir -p "$root"/{etc,tmp,usr/local/bin}
  chmod 1777 "$root/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\n%s:x:999:999:%s:/tmp:/bin/sh\n' "$user" "$user" >"$root/etc/passwd"
  printf 'root:x:0:\n%s:x:999:\n' "$user" >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  copy_programs "$root" /bin/sh /bin/cat /bin/chmod /bin/mkdir /bin/rm
}

build_postgres() {
  local name=$1 context=$scratch/postgres server newest='' version
  for server in /usr/lib/postgresql/*/bin/postgres; do
    [ ! -x "$server" ] || newest=$server
  done
  [ -n "$newest" ] || fail "there is no PostgreSQL from Debian's packages: run tests/tools/install.sh tests"
  version=$(basename "$(dirname "$(dirname "$newest")")")
  cp -r tests/tools/images/postgres "$context"
  local root=$context/root home=/usr/lib/postgresql/$version
  server_root "$root" postgres
  copy_programs "$root" "$home"/bin/{postgres,initdb,pg_isready,psql} "$home"/lib/{dict_snowball,plpgsql}.so
  mkdir -p "$root/usr/share/postgresql" "$root/usr/lib/locale" "$root/var/run/postgresql" "$root/var/lib/postgresql/data"
  cp -r "/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
  cp -r /usr/share/zoneinfo "$root/usr/share/"
  cp -r /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
  # Debian says where its configuration is by absolute path; the programs find the rest from where they are.
  ln -s "$version/bin" "$root/usr/lib/postgresql/bin"
  build "$context" "$name"
}

build_redis() {
  local name=$1 context=$scratch/redis
  [ -x /usr/bin/redis-server ] || fail "there is no Redis from Debian's packages: run tests/tools/install.sh tests"
  cp -r tests/tools/images/redis "$context"
  server_root "$context/root" redis
  copy_programs "$context/root" /usr/bin/redis-server /usr/bin/redis-cli
  mkdir -p "$context/root/data"
  build "$context" "$name"
}

# What the manifests call the image.
name_in() { sed -n 's/^ *image: \(.*\)$/\1/p' "k8s/components/$1/statefulset.yaml" | head -1; }

# The image as people get it: who runs, what is in it, how large it is, and that it serves with nothing to write to.
check() {
  local binary=$1 name=docker.io/library/tao:check bundle=$scratch/bundle program=/usr/bin/tao
  build_tao "$binary" "$name"

  quietly ours inspect --type image "$name" >/dev/null
  ours inspect --type image "$name" >"$scratch/image.json"
  python3 - "$scratch/image.json" "$NONROOT" <<'PYTHON'
import json, sys
image = json.load(open(sys.argv[1]))["OCIv1"]
config = image["config"]
expected = {
    "User": f"{sys.argv[2]}:{sys.argv[2]}",
    "Entrypoint": ["/usr/bin/tao"],
    "Cmd": ["--help"],
    "StopSignal": "SIGTERM",
    "ExposedPorts": {f"{port}/tcp": {} for port in (50051, 50052, 50053, 9464)},
}
wrong = [f"{key} is {config.get(key)!r} instead of {value!r}" for key, value in expected.items() if config.get(key) != value]
labels = config.get("Labels", {})
for label in ("title", "description", "licenses", "version", "revision"):
    if labels.get(f"org.opencontainers.image.{label}", "unknown") == "unknown":
        wrong.append(f"the label org.opencontainers.image.{label} is missing")
sys.exit("image: " + "; ".join(wrong) if wrong else 0)
PYTHON

  local from root
  from=$(ours from --pull-never "$name")
  root=$(ours mount "$from")
  mkdir -p "$bundle"
  cp -a "$root" "$bundle/rootfs"
  ours rm "$from" >/dev/null
  (cd "$bundle/rootfs" && find . ! -type d | sort) >"$scratch/files"
  (cd "$scratch/base/root" && { find . ! -type d; echo ./usr/bin/tao; } | sort) >"$scratch/expected"
  diff "$scratch/expected" "$scratch/files" >&2 || fail "the image holds other files than the base image and the program"
  ! grep -E '/(sh|bash|dash|busybox)$' "$scratch/files" >&2 || fail "there is a shell in the image"
  local megabytes
  megabytes=$(du --apparent-size --block-size=1000000 --summarize "$bundle/rootfs" | cut -f 1)
  [ "$megabytes" -lt "$MAX_MEGABYTES" ] || fail "the image has $megabytes MB: more than $MAX_MEGABYTES"

  # A container in which nothing can be written, of that user, without a single capability.
  (cd "$bundle" && runc spec)
  python3 - "$bundle/config.json" "$NONROOT" <<'PYTHON'
import json, sys
path, user = sys.argv[1], int(sys.argv[2])
spec = json.load(open(path))
process = spec["process"]
process.update(terminal=False, user={"uid": user, "gid": user}, noNewPrivileges=True)
process["capabilities"] = {kind: [] for kind in process["capabilities"]}
process["args"] = ["/usr/bin/tao", "shard", "--store", "memory:"]
spec["root"]["readonly"] = True
json.dump(spec, open(path, "w"))
PYTHON
  container=tao-image-check-$$
  runc --root "$scratch/runc" run --bundle "$bundle" "$container" >"$scratch/log" 2>&1 </dev/null &
  local running=$! waited=0 status=0
  until runc --root "$scratch/runc" exec "$container" "$program" health --timeout 1 >"$scratch/health" 2>&1; do
    kill -0 "$running" 2>/dev/null && [ "$waited" -lt 300 ] || { cat "$scratch/log" "$scratch/health" >&2; fail "it does not serve"; }
    waited=$((waited + 1))
    sleep 0.1
  done
  ! runc --root "$scratch/runc" exec "$container" /bin/sh -c true 2>/dev/null || fail "a shell started in the image"
  runc --root "$scratch/runc" kill "$container" TERM
  wait "$running" || status=$?
  [ "$status" = 0 ] || { cat "$scratch/log" >&2; fail "it ended with $status on SIGTERM"; }
  say "$(wc -l <"$scratch/files") files, $megabytes MB: user, labels, files and a read-only start are as they should be"
}

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

kind=${1-}
case $kind:$# in
  tao:3 | tao:4)
    begin
    name=${4:-docker.io/library/tao:dev}
    build_tao "$2" "$name"
    push "$name" "$3"
    ;;
  postgres:2 | postgres:3 | redis:2 | redis:3)
    begin
    name=${3:-$(name_in "$kind")}
    "build_$kind" "$name"
    push "$name" "$2"
    ;;
  check:2)
    begin
    type -P runc >/dev/null || fail "there is no runc: run tests/tools/install.sh k8s"
    check "$2"
    ;;
  *) usage ;;
esac
