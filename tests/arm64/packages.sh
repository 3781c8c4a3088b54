# Debian's packages from the mirrors that this machine uses, without a change to its system. Sourced by tests/arm64 and
# tests/image. Must not live here: which packages.
# shellcheck shell=bash

# This machine's apt with lists of its own under a folder, fetched once: a machine without lists has them too.
apt_at() {
  local place="$1"
  shift
  local own=(-q -o "Dir::State::lists=$place/lists" -o "Dir::Cache=$place/cache" -o Acquire::Languages=none
    -o "APT::Sandbox::User=$(id -un)")
  if [[ ! -e "$place/fetched" ]]; then
    mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
    apt-get "${own[@]}" update >"$place/update.log" 2>&1 || return 1
    : >"$place/fetched"
  fi
  apt-get "${own[@]}" "$@"
}

# The mirror of Debian and the name of its release, as `URI CODENAME`.
debian_mirror() {
  # shellcheck disable=SC2016  # apt-get's own words
  apt_at "$1" indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' \
    | grep -v -- - | sort -u | head -1
}
