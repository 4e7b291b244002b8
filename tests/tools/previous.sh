#!/usr/bin/env bash
# Builds `tao` as it was at the commit that deploy/previous-version names, and prints the program's path: FOLDER/tao. Arguments: a folder
# for the source and the program, then more for cargo, such as --release. What was built there before is used again.
#
# Compiled dependencies are shared with this version, in cargo's target folder; the program there is put back as it was. Cargo tells packages of
# a workspace apart by name and version, not by where they are: the version of these has `+previous` at its end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ $# -ge 1 ] || { echo "usage: tests/tools/previous.sh FOLDER [CARGO ARGUMENTS]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift

commit=$(sed -e 's/#.*//' -e 's/[[:space:]]//g' deploy/previous-version | grep . | head -n 1) ||
  { echo "deploy/previous-version names no commit" >&2; exit 2; }
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
  echo "no program of the version before: commit $commit is not in this clone (a shallow one, or none)" >&2
  exit 3
fi

stamp="$commit $*"
if [ -x "$folder/tao" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
  echo "$folder/tao"
  exit
fi
rm -rf "$folder/source" "$folder/stamp" "$folder/tao"
mkdir "$folder/source"
# Not the times of the commit: cargo would take them for those of an earlier build.
git archive "$commit" | tar -x -m -C "$folder/source"

sed -i.old 's/^version = "\([^"+]*\)"/version = "\1+previous"/' "$folder/source/Cargo.toml"
awk '/^name = "tao(-[a-z0-9-]*)?"$/ { ours = 1 } ours && sub(/^version = "[^"+]*/, "&+previous") { ours = 0 } { print }' \
  "$folder/source/Cargo.lock" > "$folder/source/Cargo.lock.new"
mv "$folder/source/Cargo.lock.new" "$folder/source/Cargo.lock"

target=${CARGO_TARGET_DIR:-$PWD/target}
profile=debug
arguments=()
for argument in "$@"; do
  [ "$argument" != --release ] || profile=release
  # Always given, below, and cargo takes it once.
  [ "$argument" = --locked ] || arguments+=("$argument")
done
present="$target/$profile/tao"
put_back() {
  if [ -e "$present.present" ]; then mv -f "$present.present" "$present"; else rm -f "$present"; fi
  if [ -e "$present.d.present" ]; then mv -f "$present.d.present" "$present.d"; else rm -f "$present.d"; fi
}
for file in "$present" "$present.d"; do
  # With its time: tests look whether it is younger than its sources.
  [ ! -e "$file" ] || cp -p "$file" "$file.present"
done
trap put_back EXIT
# In its own folder, so that its own toolchain file and settings count.
(cd "$folder/source" && CARGO_TARGET_DIR="$target" cargo build --locked -p tao "${arguments[@]}" >&2)
# A copy, since cargo's may be a link to what it keeps.
cp "$present" "$folder/tao"
echo "$stamp" > "$folder/stamp"
echo "$folder/tao"
