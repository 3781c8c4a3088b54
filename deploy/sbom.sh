#!/bin/sh
# Lists the components of the server as a software bill of materials (CycloneDX 1.5, JSON) on standard output: the crates
# that are linked into it, with version, licence and checksum, the Rust standard library, and the C library.
#
#   deploy/sbom.sh TARGET
#
# TARGET is the Rust target, such as aarch64-unknown-linux-gnu. Reads Cargo.lock and the manifests through Cargo, needs no
# other program than a POSIX shell and awk, and prints the same bytes for the same inputs. The Dockerfiles run it; the
# result is /sbom.cdx.json in the image. Macros and build scripts run during the build only and are not listed.
#
# Exit codes: 0 success, 1 failure, 64 usage error.
set -eu

[ "$#" -eq 1 ] || { echo "usage: deploy/sbom.sh TARGET" >&2; exit 64; }
target="$1"
cd "$(dirname "$0")/.."
lines="$(mktemp)"
trap 'rm -f "$lines"' EXIT

# The C library is linked statically; its headers and archives come from this package of the build machine.
case "$target" in
  x86_64-*) debian=amd64 ;;
  aarch64-*) debian=arm64 ;;
  *) echo "deploy/sbom.sh: $target: x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu" >&2; exit 64 ;;
esac
libc="$(dpkg-query -W -f '${Version}' "libc6-dev-$debian-cross" 2>/dev/null || true)"
[ -n "$libc" ] || libc="$(dpkg-query -W -f '${Version}' "libc6-dev:$debian" 2>/dev/null || true)"
rust="$(rustc --version | cut -d ' ' -f 2)"

cargo tree --locked --package inventory-api --target "$target" --edges normal --prefix depth \
  --format '|{p}|{l}' >"$lines"
awk -F '|' -v rust="$rust" -v libc="$libc" '
  function text(value) {
    gsub(/\\/, "\\\\", value)
    gsub(/"/, "\\\"", value)
    return "\"" value "\""
  }
  # Cargo.lock: checksum of each crate of a registry.
  FILENAME == "Cargo.lock" {
    split($0, word, "\"")
    if ($0 ~ /^name = /) name = word[2]
    if ($0 ~ /^version = /) version = word[2]
    if ($0 ~ /^checksum = /) checksum[name " " version] = word[2]
    next
  }
  # Depth, "name vVERSION (notes)", licence. Cargo prints the children of a crate once, so the edges make the whole graph.
  {
    depth = $1 + 0
    split($2, word, " ")
    crate = word[1] " " substr(word[2], 2)
    path[depth] = crate
    if ($2 ~ /\(proc-macro\)/) is_macro[crate] = 1
    license[crate] = $3
    sub(/ \(\*\)$/, "", license[crate])
    if (depth == 0 && root == "") root = crate
    else if (depth == 0) wrong = crate
    else if (!((path[depth - 1], crate) in edge)) {
      edge[path[depth - 1], crate] = 1
      children[path[depth - 1]] = children[path[depth - 1]] "\n" crate
    }
  }
  function reference(crate,   word) {
    split(crate, word, " ")
    return "pkg:cargo/" word[1] "@" word[2]
  }
  function component(kind, crate,   word, shown) {
    split(crate, word, " ")
    shown = "{\"type\": " text(kind) ", \"bom-ref\": " text(reference(crate)) ", \"name\": " text(word[1]) \
      ", \"version\": " text(word[2]) ", \"purl\": " text(reference(crate))
    if (license[crate] != "") {
      # The separator of older manifests.
      gsub(/ *\/ */, " OR ", license[crate])
      shown = shown ", \"licenses\": [{\"expression\": " text(license[crate]) "}]"
    }
    if (crate in checksum)
      shown = shown ", \"hashes\": [{\"alg\": \"SHA-256\", \"content\": " text(checksum[crate]) "}]"
    return shown "}"
  }
  function generic(name, version) {
    return "{\"type\": \"library\", \"bom-ref\": " text("pkg:generic/" name "@" version) ", \"name\": " text(name) \
      ", \"version\": " text(version) ", \"purl\": " text("pkg:generic/" name "@" version) "}"
  }
  function sort(list, count,   i, j, held) {
    for (i = 2; i <= count; i++) {
      held = list[i]
      for (j = i - 1; j >= 1 && list[j] > held; j--) list[j + 1] = list[j]
      list[j + 1] = held
    }
  }
  END {
    if (wrong != "" || root == "") {
      print "deploy/sbom.sh: cargo tree lists " (wrong != "" ? wrong " beside " root : "nothing") \
        ", want inventory-api alone; unset CARGO_RESOLVER_FEATURE_UNIFICATION" >"/dev/stderr"
      exit 1
    }
    # All that is linked: reachable from the program without a macro.
    queue[1] = root
    seen[root] = 1
    count = 1
    for (at = 1; at <= count; at++) {
      number = split(children[queue[at]], child, "\n")
      for (i = 2; i <= number; i++)
        if (!(child[i] in is_macro) && !(child[i] in seen)) {
          seen[child[i]] = 1
          queue[++count] = child[i]
        }
    }
    sort(queue, count)
    printf "{\n \"bomFormat\": \"CycloneDX\",\n \"specVersion\": \"1.5\",\n \"version\": 1,\n"
    printf " \"metadata\": {\"component\": %s},\n \"components\": [\n", component("application", root)
    for (i = 1; i <= count; i++) if (queue[i] != root) printf "  %s,\n", component("library", queue[i])
    if (libc != "") printf "  %s,\n", generic("glibc", libc)
    printf "  %s\n ],\n \"dependencies\": [\n", generic("rust-std", rust)
    for (i = 1; i <= count; i++) {
      number = split(children[queue[i]], child, "\n")
      kept = 0
      for (j = 2; j <= number; j++) if (child[j] in seen) linked[++kept] = child[j]
      sort(linked, kept)
      printf "  {\"ref\": %s, \"dependsOn\": [", text(reference(queue[i]))
      for (j = 1; j <= kept; j++) printf "%s%s", (j > 1 ? ", " : ""), text(reference(linked[j]))
      printf "]}%s\n", (i < count ? "," : "")
    }
    printf " ]\n}\n"
  }' Cargo.lock "$lines"
