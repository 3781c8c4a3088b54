#!/usr/bin/env bash
# Says how this host is set for the server, sets it, and puts everything back. Must not live here: which
# settings there are (settings.sh), how a value is read, written and remembered (store.sh).
#
# Exit codes: 0 all right, 1 something differs, 2 something could not be set or put back, 64 usage.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# Every path is taken below it: a mounted image of a machine, or a test's tree.
ROOT="${ROOT:-}"
# shellcheck source=tuning/settings.sh
source "$here/settings.sh"
# shellcheck source=tuning/store.sh
source "$here/store.sh"

usage() {
  cat <<'TEXT'
usage: tuning/host.sh --check | --apply [--yes] | --revert   [options]

  --check       print every setting, what it is and what is wanted (nothing is changed)
  --apply       say what would be changed; with --yes, change it and remember what was before
  --revert      put back what --apply changed

  --only NAME   only settings of this name or whose name begins with it and a digit or "-" (irq, rps)
  --cpus LIST   the CPUs of the shards, as in 2-5,7: interrupts and packets are kept off them
  --why         with --check: the reason of each, where it is, and what it was measured to do
  --json        print JSON
  --state FILE  where it is remembered (default /var/lib/inventory-api/host-before)
  --yes         with --apply: do it

Exit codes: 0 all right, 1 something differs, 2 something could not be set or put back, 64 usage.
What the kernel sets is gone after a boot: run --apply --yes at each (a oneshot unit, user data).
TEXT
}

wrong() {
  echo "host.sh: $1 (tuning/host.sh --help)" >&2
  exit 64
}

names=() kinds=() wheres=() rules=() wanteds=() whys=() measureds=()
setting() {
  [[ -z "$only" || "$1" == "$only" || "$1" == "$only"[0-9-]* ]] || return 0
  names+=("$1") kinds+=("$2") wheres+=("$3") rules+=("$4") wanteds+=("$5") whys+=("$6") measureds+=("$7")
}

do_what="" only="" cpus="" json=no yes=no why=no state=""
choose() {
  [[ -z "$do_what" ]] || wrong "$do_what and $1 at once: choose one"
  do_what="$1"
}
while (($# > 0)); do
  case "$1" in
    --check | --apply | --revert) choose "$1" ;;
    --only | --cpus | --state)
      [[ -n "${2:-}" ]] || wrong "$1 needs a value"
      case "$1" in
        --only) only="$2" ;;
        --cpus) cpus="$2" ;;
        --state) state="$2" ;;
      esac
      shift
      ;;
    --json) json=yes ;;
    --why) why=yes ;;
    --yes) yes=yes ;;
    -h | --help) usage; exit 0 ;;
    *) wrong "$1 is not an option" ;;
  esac
  shift
done
[[ -n "$do_what" ]] || wrong "say --check, --apply or --revert"
state="${state:-$ROOT/var/lib/inventory-api/host-before}"

if [[ -n "$cpus" ]]; then
  [[ "$cpus" =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || wrong "--cpus $cpus: a list as 2-5,7 is wanted"
  [[ -z "$(without "$cpus" "$(online_cpus)")" ]] \
    || wrong "--cpus $cpus: online are $(online_cpus)"
  [[ -n "$(without "$(online_cpus)" "$cpus")" ]] \
    || wrong "--cpus $cpus: leaves no CPU for interrupts; leave out at least one of $(online_cpus)"
fi

table_settings
limit_settings
[[ -z "$cpus" ]] || placement_settings
[[ "$do_what" == --revert || ${#names[@]} -gt 0 ]] \
  || wrong "--only $only: no setting has that name${cpus:+ with --cpus $cpus}; --check prints all (irq, rps, xps need --cpus)"

# As a JSON string.
quoted() {
  local text="${1//\\/\\\\}"
  text="${text//\"/\\\"}"
  printf '"%s"' "${text//$'\n'/\\n}"
}

# What a table has room for: of a file of ours only whether it is right.
shown() {
  case "$1:$2" in
    text:) echo "no such file" ;;
    text:*) echo "(a file)" ;;
    *) echo "$2" ;;
  esac
}

json_rows=()
row() {
  local at="$1" is="$2" verdict="$3" wish kind="${kinds[$1]}"
  if [[ $json == yes ]]; then
    json_rows+=("{\"name\":$(quoted "${names[at]}"),\"where\":$(quoted "${wheres[at]}"),\"is\":$(quoted "$is"),\"rule\":$(quoted "${rules[at]}"),\"wanted\":$(quoted "${wanteds[at]}"),\"verdict\":$(quoted "$verdict"),\"why\":$(quoted "${whys[at]}"),\"measured\":$(quoted "${measureds[at]}")}")
    return
  fi
  wish="$(shown "$kind" "${wanteds[at]}")"
  case "${rules[at]}" in
    min) wish="at least $wish" ;;
    max) wish="at most $wish" ;;
    any) wish="${wish// / or }" ;;
  esac
  printf '%-20s %-14s %-24s %s\n' "${names[at]}" "$is" "$wish" "$verdict"
  if [[ $why == yes ]]; then
    printf '    %s\n' "${wheres[at]}" "${whys[at]}" "${measureds[at]}"
  fi
}

finish_rows() {
  [[ $json == yes ]] || return 0
  local IFS=,
  printf '{"settings":[%s]}\n' "${json_rows[*]-}"
}

differing=0 failing=0
header() {
  [[ $json == yes ]] || printf '%-20s %-14s %-24s %s\n' setting is wanted verdict
}

# Goes over the table; with `set`, changes what differs.
walk() {
  local at is kind text
  header
  for at in "${!names[@]}"; do
    kind="${kinds[at]}"
    if ! is="$(value_of "$kind" "${wheres[at]}")"; then
      row "$at" - "not there"
    elif fits "$kind" "${rules[at]}" "${wanteds[at]}" "$is"; then
      row "$at" "$(shown "$kind" "$is")" ok
    elif [[ "$kind" == absent ]]; then
      differing=$((differing + 1))
      row "$at" "$is" "differs: by hand, see --why"
    elif [[ "$1" == look ]]; then
      differing=$((differing + 1))
      row "$at" "$(shown "$kind" "$is")" differs
    else
      text="${wanteds[at]}"
      [[ "${rules[at]}" == any ]] && text="${text%% *}"
      if remember "$kind" "${wheres[at]}" && write_value "$kind" "${wheres[at]}" "$text"; then
        row "$at" "$(shown "$kind" "$is")" "set"
      else
        failing=$((failing + 1))
        forget_unchanged "${wheres[at]}"
        row "$at" "$(shown "$kind" "$is")" "refused by the kernel, or not allowed"
      fi
    fi
  done
  finish_rows
}

# The last change first; folders last of all, for the state file lies in one.
revert() {
  local kind boot path bytes now
  local dirs=()
  [[ -e "$state" ]] || { echo "nothing to put back: there is no $state"; return; }
  now="$(boot_now)"
  while read -r kind boot path bytes; do
    if [[ "$kind" == dir ]]; then
      dirs+=("$path")
    elif [[ -n "$only" ]] && ! is_wanted "$path"; then
      continue
    elif [[ "$boot" != - && "$boot" != "$now" ]]; then
      echo "$path: the boot since then has put it back"
      drop_record "$path"
    elif [[ "$kind" != made && ! -e "$ROOT$path" ]]; then
      echo "$path: not there any more"
      drop_record "$path"
    elif put_back "$kind" "$path" "$bytes"; then
      echo "$path: put back"
      drop_record "$path"
    else
      echo "$path: could not be put back; it stays in $state" >&2
      failing=$((failing + 1))
    fi
  done < <(tac -- "$state")
  awk '$1 != "dir" { left = 1 } END { exit left }' "$state" || return 0
  rm -f -- "$state" "$state.new"
  for path in "${dirs[@]}"; do
    rmdir -- "$ROOT$path" 2>/dev/null || echo "$path: kept, others have put something there"
  done
}

# Whether a path is one of those that --only chose.
is_wanted() {
  local where
  for where in "${wheres[@]}"; do
    [[ "$where" == "$1" ]] && return 0
  done
  return 1
}

case "$do_what" in
  --check) walk look ;;
  --apply)
    if [[ $yes == yes ]]; then
      begin_state || { echo "host.sh: $state cannot be written: nothing was changed" >&2; exit 2; }
      walk set
      [[ $json == yes ]] || echo "what was before is in $state; --revert puts it back"
    else
      walk look
      [[ $json == yes ]] || echo "dry run: $differing would be changed; --yes does it"
      exit 0
    fi
    ;;
  --revert) revert ;;
esac
((failing == 0)) || exit 2
((differing == 0)) || exit 1
