# Reads, writes, records and reverts settings; arithmetic of CPU lists. Sourced by host.sh. Must not contain the list of
# settings (settings.sh) or output (host.sh).
# shellcheck shell=bash
# shellcheck disable=SC2154  # host.sh sets state
#
# The state file has one line per change: kind, boot id, path, and the previous bytes in base64. It is replaced
# atomically before each change, so that every change can be reverted. `made` marks files and `dir` directories that did
# not exist.

# ---- CPUs ------------------------------------------------------------------------------------------

# Expands "0-2,5" to "0 1 2 5".
expand() {
  local part
  local out=()
  for part in ${1//,/ }; do
    if [[ "$part" == *-* ]]; then
      mapfile -t -O "${#out[@]}" out < <(seq "${part%-*}" "${part#*-}")
    else
      out+=("$part")
    fi
  done
  echo "${out[*]-}"
}

# Formats sorted numbers as a kernel list: "0 1 2 5" becomes "0-2,5".
list_of() {
  local from="" to="" cpu text=""
  for cpu in "$@" end; do
    if [[ -n "$to" && "$cpu" == "$((to + 1))" ]]; then
      to="$cpu"
      continue
    fi
    if [[ -n "$from" ]]; then
      text+="${text:+,}$from"
      ((to > from)) && text+="-$to"
    fi
    from="$cpu" to="$cpu"
    [[ "$cpu" == end ]] && break
  done
  echo "$text"
}

without() {
  local cpu
  local out=()
  for cpu in $(expand "$1"); do
    [[ " $(expand "$2") " == *" $cpu "* ]] || out+=("$cpu")
  done
  list_of "${out[@]}"
}

# CPU mask in kernel format: 32-bit words, highest first.
mask() {
  local cpu word top=0
  local -a words=()
  for cpu in $(expand "$1"); do
    word=$((cpu / 32))
    words[word]=$((${words[word]:-0} | (1 << (cpu % 32))))
    ((word > top)) && top=$word
  done
  local text=""
  for ((word = top; word >= 0; word--)); do
    text+="${text:+,}$(printf '%08x' "${words[word]:-0}")"
  done
  echo "$text"
}

# A mask without leading zeros, for comparison.
bare_mask() {
  local digits="${1//,/}"
  digits="${digits#"${digits%%[!0]*}"}"
  echo "${digits:-0}"
}

online_cpus() {
  cat "$ROOT/sys/devices/system/cpu/online" 2>/dev/null || echo 0
}

# ---- Devices ---------------------------------------------------------------------------------------

# Network devices with hardware.
network_devices() {
  local path
  for path in "$ROOT"/sys/class/net/*; do
    [[ -e "$path/device" ]] && echo "${path##*/}"
  done
  return 0
}

# Interrupts of a device; those of a virtio device belong to its parent PCI device.
interrupts_of() {
  local path
  for path in "$ROOT/sys/class/net/$1/device/msi_irqs"/* "$ROOT/sys/class/net/$1/device/../msi_irqs"/*; do
    [[ -e "$path" ]] && echo "${path##*/}"
  done | sort -nu
}

is_running() {
  grep -qsx -- "$1" "$ROOT"/proc/[0-9]*/comm
}

# ---- Values ----------------------------------------------------------------------------------------

# Current value of a setting; fails if the path does not exist. A missing `text` file reads as empty.
value_of() {
  local kind="$1" path="$ROOT$2" text
  case "$kind" in
    absent)
      if is_running "$2"; then echo "running"; else echo "not running"; fi
      return
      ;;
    text)
      cat -- "$path" 2>/dev/null || true
      return
      ;;
  esac
  [[ -e "$path" ]] && text="$(cat -- "$path" 2>/dev/null)" || return 1
  if [[ "$kind" == choice ]]; then
    text="${text#*\[}"
    text="${text%%\]*}"
  fi
  echo "$text"
}

# Whether a value satisfies the rule.
fits() {
  local kind="$1" rule="$2" wanted="$3" value="$4"
  [[ "$kind" == mask ]] && { wanted="$(bare_mask "$wanted")" value="$(bare_mask "$value")"; }
  case "$rule" in
    min) [[ "$value" =~ ^[0-9]+$ ]] && ((value >= wanted)) ;;
    max) [[ "$value" =~ ^[0-9]+$ ]] && ((value <= wanted)) ;;
    is) [[ "$value" == "$wanted" ]] ;;
    any) [[ " $wanted " == *" $value "* ]] ;;
  esac
}

# Writes a value and reads it back, because the kernel ignores some values without an error.
write_value() {
  local kind="$1" path="$ROOT$2" value="$3" listed
  if [[ "$kind" == choice && -n "$ROOT" ]]; then
    # In a test tree there is no kernel that moves the brackets.
    listed="$(tr -d '[]' <"$path")"
    printf '%s\n' "${listed/"$value"/"[$value]"}" 2>/dev/null >"$path" || return 1
  else
    { printf '%s\n' "$value" >"$path"; } 2>/dev/null || return 1
  fi
  fits "$kind" is "$value" "$(value_of "$kind" "$2")"
}

# ---- Previous values -------------------------------------------------------------------------------

boot_now() {
  cat "$ROOT/proc/sys/kernel/random/boot_id" 2>/dev/null || echo unknown
}

is_recorded() {
  [[ -e "$state" ]] && awk -v p="$1" '$3 == p { found = 1 } END { exit !found }' "$state"
}

# Replaces the state file atomically.
keep_state() {
  cat >"$state.new" && sync -- "$state.new" && mv -f -- "$state.new" "$state"
}

add_record() {
  { [[ ! -e "$state" ]] || cat -- "$state"; printf '%s\n' "$1"; } | keep_state
}

drop_record() {
  awk -v p="$1" '$3 != p' "$state" | keep_state
}

# Drops the record of a change that failed, so that --revert does not touch it.
forget_unchanged() {
  local path="$1" kept
  kept="$(awk -v p="$path" '$3 == p { print $4 }' "$state")"
  if [[ "$kept" == - ]]; then
    [[ -e "$ROOT$path" ]] || drop_record "$path"
  elif [[ "$(base64 -w 0 2>/dev/null <"$ROOT$path")" == "$kept" ]]; then
    drop_record "$path"
  fi
}

# Missing parent directories of a path, outermost first.
missing_dirs() {
  local dir
  dir="$(dirname "$1")"
  [[ -d "$ROOT$dir" ]] && return
  missing_dirs "$dir"
  echo "$dir"
}

make_dirs_for() {
  local dir
  for dir in $(missing_dirs "$1"); do
    is_recorded "$dir" || add_record "dir - $dir -"
    mkdir -- "$ROOT$dir"
  done
}

# Creates the state file and its directory.
begin_state() {
  local dirs dir
  [[ -e "$state" ]] && return
  dirs="$(missing_dirs "${state#"$ROOT"}")"
  mkdir -p -- "$(dirname "$state")"
  : | keep_state
  for dir in $dirs; do add_record "dir - $dir -"; done
}

# Records the current value of a path unless an --apply of the same boot recorded it. Values from before a reboot are
# recorded again.
remember() {
  local kind="$1" path="$2" boot kept
  boot="$(boot_now)"
  [[ "$kind" == text ]] && boot=-
  if is_recorded "$path"; then
    kept="$(awk -v p="$path" '$3 == p { print $2 }' "$state")"
    [[ "$kept" == "$boot" ]] && return
    drop_record "$path"
  fi
  if [[ ! -e "$ROOT$path" ]]; then
    make_dirs_for "$path"
    add_record "made $boot $path -"
  else
    add_record "$kind $boot $path $(base64 -w 0 <"$ROOT$path")"
  fi
}

# Reverts one record.
put_back() {
  local kind="$1" path="$2" bytes="$3" value
  case "$kind" in
    made) rm -f -- "$ROOT$path" ;;
    choice)
      value="$(base64 -d <<<"$bytes")"
      value="${value#*\[}"
      write_value choice "$path" "${value%%\]*}"
      ;;
    *)
      { base64 -d <<<"$bytes" >"$ROOT$path"; } 2>/dev/null \
        && [[ "$(base64 -w 0 <"$ROOT$path")" == "$bytes" ]]
      ;;
  esac
}
