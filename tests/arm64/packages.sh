# Downloads Debian packages from the mirrors of the host without changing the system. Sourced by tests/arm64 and
# tests/image, which choose the packages.
# shellcheck shell=bash

# Runs apt-get with its own package lists in a directory; the lists are fetched once.
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

# Prints the Debian mirror and the release name of the host as `URI CODENAME`.
debian_mirror() {
  # shellcheck disable=SC2016  # variables of apt-get
  apt_at "$1" indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' \
    | grep -v -- - | sort -u | head -1
}
