#!/usr/bin/env bash
# Checks, applies and reverts host settings for the server. The list of settings is in settings.sh; reading, writing and
# recording of values is in store.sh.
#
# Exit codes: 0 success, 1 settings differ, 2 a setting could not be applied or reverted, 64 usage error.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# Prefix of every path: a mounted machine image, or the tree of a test.
ROOT="${ROOT:-}"
# shellcheck source=tuning/settings.sh
source "$here/settings.sh"
# shellcheck source=tuning/store.sh
source "$here/store.sh"

usage() {
  cat <<'TEXT'
usage: tuning/host.sh --check | --apply [--yes] | --revert   [options]

  --check       print the current and the expected value of every setting; changes nothing
  --apply       print the changes; with --yes, apply them and record the previous values
  --revert      restore the values that --apply changed

  --only NAME   only settings with this name, or with this name followed by a digit or "-" (irq, rps)
  --cpus LIST   CPUs of the shards, for example 2-5,7: interrupts and packet processing are moved off them
  --why         with --check: also print path, reason and measured effect of each setting
  --json        print JSON
  --state FILE  file with the previous values (default /var/lib/inventory-api/host-before)
  --yes         with --apply: apply the changes

Exit codes: 0 success, 1 settings differ, 2 a setting could not be applied or reverted, 64 usage error.
Kernel settings are lost at a reboot: run --apply --yes at each boot (oneshot unit, user data).
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
  [[ -z "$do_what" ]] || wrong "$do_what and $1 cannot be combined"
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
    *) wrong "unknown option $1" ;;
  esac
  shift
done
[[ -n "$do_what" ]] || wrong "missing --check, --apply or --revert"
state="${state:-$ROOT/var/lib/inventory-api/host-before}"

if [[ -n "$cpus" ]]; then
  [[ "$cpus" =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || wrong "--cpus $cpus: must be a list such as 2-5,7"
  [[ -z "$(without "$cpus" "$(online_cpus)")" ]] \
    || wrong "--cpus $cpus: online CPUs are $(online_cpus)"
  [[ -n "$(without "$(online_cpus)" "$cpus")" ]] \
    || wrong "--cpus $cpus: leaves no CPU for interrupts; omit at least one of $(online_cpus)"
fi

table_settings
limit_settings
[[ -z "$cpus" ]] || placement_settings
[[ "$do_what" == --revert || ${#names[@]} -gt 0 ]] \
  || wrong "--only $only: unknown setting${cpus:+ with --cpus $cpus}; --check lists all (irq, rps, xps need --cpus)"

# Prints a JSON string.
quoted() {
  local text="${1//\\/\\\\}"
  text="${text//\"/\\\"}"
  printf '"%s"' "${text//$'\n'/\\n}"
}

# Value for the table; the content of a whole file is not printed.
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

# Visits all settings; with `set`, applies those that differ.
visit() {
  local at is kind text
  header
  for at in "${!names[@]}"; do
    kind="${kinds[at]}"
    if ! is="$(value_of "$kind" "${wheres[at]}")"; then
      row "$at" - "missing"
    elif fits "$kind" "${rules[at]}" "${wanteds[at]}" "$is"; then
      row "$at" "$(shown "$kind" "$is")" ok
    elif [[ "$kind" == absent ]]; then
      differing=$((differing + 1))
      row "$at" "$is" "differs: change manually, see --why"
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
        row "$at" "$(shown "$kind" "$is")" "refused by the kernel, or no permission"
      fi
    fi
  done
  finish_rows
}

# Reverts the last change first; directories come last, because one of them contains the state file.
revert() {
  local kind boot path bytes now
  local dirs=()
  [[ -e "$state" ]] || { echo "nothing to revert: $state does not exist"; return; }
  now="$(boot_now)"
  while read -r kind boot path bytes; do
    if [[ "$kind" == dir ]]; then
      dirs+=("$path")
    elif [[ -n "$only" ]] && ! is_selected "$path"; then
      continue
    elif [[ "$boot" != - && "$boot" != "$now" ]]; then
      echo "$path: already reset by a reboot"
      drop_record "$path"
    elif [[ "$kind" != made && ! -e "$ROOT$path" ]]; then
      echo "$path: no longer exists"
      drop_record "$path"
    elif put_back "$kind" "$path" "$bytes"; then
      echo "$path: reverted"
      drop_record "$path"
    else
      echo "$path: could not be reverted; it stays in $state" >&2
      failing=$((failing + 1))
    fi
  done < <(tac -- "$state")
  awk '$1 != "dir" { left = 1 } END { exit left }' "$state" || return 0
  rm -f -- "$state" "$state.new"
  for path in "${dirs[@]}"; do
    rmdir -- "$ROOT$path" 2>/dev/null || echo "$path: kept, because it is not empty"
  done
}

# Whether --only selects a path.
is_selected() {
  local where
  for where in "${wheres[@]}"; do
    [[ "$where" == "$1" ]] && return 0
  done
  return 1
}

case "$do_what" in
  --check) visit look ;;
  --apply)
    if [[ $yes == yes ]]; then
      begin_state || { echo "host.sh: $state cannot be written; nothing was changed" >&2; exit 2; }
      visit set
      [[ $json == yes ]] || echo "previous values are in $state; --revert restores them"
    else
      visit look
      [[ $json == yes ]] || echo "dry run: $differing settings differ; --yes applies them"
      exit 0
    fi
    ;;
  --revert) revert ;;
esac
((failing == 0)) || exit 2
((differing == 0)) || exit 1
