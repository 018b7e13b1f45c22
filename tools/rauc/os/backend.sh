# shellcheck shell=bash
# What both boards' RAUC backends share: which system is tried, how often, and which one is kept. Sourced, not run.
#
# A new system is tried (`pending`) while the old one stays the committed one. It is committed only when it was marked
# good from within itself. A try that a power cut ends does not count (up to CUTS_LIMIT of them, in case a board reports
# every reset as one); TRIES failures of other kinds end it. The committed system is never given up, whatever happens.
#
# The board file defines: board_booted, board_committed, board_commit SLOT, board_try SLOT (reboots), board_power_cut,
# board_keep SLOT, board_repair SLOT, board_fell_back SLOT, board_preflight.
set -euo pipefail

STATE_DIR=${RADBOX_OS_STATE:-/data/os}
CMDLINE=${RADBOX_CMDLINE:-/proc/cmdline}
TRIES=3
CUTS_LIMIT=20
LOG_LIMIT_BYTES=262144

die() { printf 'radbox-os: %s\n' "$*" >&2; exit 1; }

other() { if [ "$1" = A ]; then echo B; else echo A; fi; }

is_slot() { [ "$1" = A ] || [ "$1" = B ]; }

# Content on stdin, whole or not at all: bytes durable, then the name, then the folder.
write_durably() {
  local path=$1 temporary=$1.new
  cat >"$temporary"
  sync "$temporary"
  mv -f "$temporary" "$path"
  sync "$(dirname "$path")"
}

# One line for each event: seconds since boot, boot, words. No wall clock: the box may not know it.
event() {
  local log=$STATE_DIR/events.log up boot
  read -r up _ </proc/uptime
  boot=$(cat /proc/sys/kernel/random/boot_id)
  if [ -f "$log" ] && [ "$(stat -c %s "$log")" -gt "$LOG_LIMIT_BYTES" ]; then mv -f "$log" "$log.1"; fi
  printf '%s %s %s\n' "$up" "$boot" "$*" >>"$log"
  sync "$log"
}

read_state() {
  pending='' phase='' left=0 cuts=0 bad='' seen='' kept=''
  local key value
  [ -f "$STATE_DIR/state" ] || return 0
  while IFS='=' read -r key value; do
    case "$key=$value" in
      pending=A | pending=B) pending=$value ;;
      phase=waiting | phase=armed) phase=$value ;;
      left=[0-9]) left=$value ;;
      cuts=[0-9] | cuts=[0-9][0-9]) cuts=$value ;;
      bad=A | bad=B | bad=AB) bad=$value ;;
      seen=A | seen=B | seen=AB) seen=$value ;;
      kept=A | kept=B) kept=$value ;;
    esac
  done <"$STATE_DIR/state"
}

write_state() {
  printf 'pending=%s\nphase=%s\nleft=%s\ncuts=%s\nbad=%s\nseen=%s\nkept=%s\n' \
    "$pending" "$phase" "$left" "$cuts" "$bad" "$seen" "$kept" | write_durably "$STATE_DIR/state"
}

no_trial() { pending='' phase='' left=0 cuts=0; }

with_slot() { # with_slot SET SLOT: the set with the slot, in order
  case "$1$2" in A | AA) echo A ;; B | BB) echo B ;; *) echo AB ;; esac
}

without_slot() { echo "${1//$2/}"; }

# A trial of the committed system is over: the power went between committing and noting it.
settle() {
  read_state
  committed=$(board_committed)
  if [ "$pending" = "$committed" ]; then no_trial; fi
  bad=$(without_slot "$bad" "$committed")
}

get_primary() { settle; echo "${pending:-$committed}"; }

set_primary() {
  is_slot "$1" || die "expected slot A or B, got '$1'"
  settle
  if [ "$1" = "$committed" ]; then
    no_trial
    write_state
    board_keep "$committed"
  else
    pending=$1 phase=waiting left=$TRIES cuts=0
    write_state
  fi
  event "primary $1"
}

get_state() {
  is_slot "$1" || die "expected slot A or B, got '$1'"
  settle
  case "$bad" in *"$1"*) echo bad ;; *) echo good ;; esac
}

set_state() {
  is_slot "$1" || die "expected slot A or B, got '$1'"
  settle
  case "$2" in
    good)
      bad=$(without_slot "$bad" "$1")
      if [ "$1" = "$pending" ]; then
        [ "$(board_booted)" = "$1" ] || die "expected slot $1 to run before it is committed, got the other one"
        board_commit "$1"
        no_trial
        kept=$1
        event "committed $1"
      fi
      write_state
      board_keep "$(board_booted)"
      ;;
    bad)
      # An installation begins so for the slot that it overwrites. The committed one must always start.
      [ "$1" != "$committed" ] || die "expected another slot than $1: it is the one that is known to work"
      bad=$(with_slot "$bad" "$1")
      if [ "$1" = "$pending" ]; then no_trial; fi
      write_state
      board_keep "$committed"
      event "bad $1"
      ;;
    *) die "expected good or bad, got '$2'" ;;
  esac
}

# Early in each boot, in either system.
boot_check() {
  local booted
  mkdir -p "$STATE_DIR"
  read_state
  board_repair "${kept:-A}"
  settle
  booted=$(board_booted)
  seen=$(with_slot "$seen" "$booted")
  if [ -z "$pending" ] && [ "$booted" != "$committed" ]; then board_fell_back "$booted"; fi
  kept=$committed
  if [ -z "$pending" ] || [ "$booted" = "$pending" ]; then
    write_state
    board_keep "$booted"
    event "boot $booted"
    return
  fi
  if [ "$phase" = armed ] && board_power_cut; then
    cuts=$((cuts + 1))
    event "power cut while $pending was tried: does not count"
  elif [ "$phase" = armed ]; then
    left=$((left - 1))
    event "$pending did not come up, $left tries left"
  fi
  if [ "$left" -le 0 ] || [ "$cuts" -ge "$CUTS_LIMIT" ]; then
    if [ "$left" -le 0 ]; then bad=$(with_slot "$bad" "$pending"); fi
    event "gave $pending up, $committed stays"
    no_trial
    write_state
    board_keep "$committed"
    return
  fi
  local try=$pending
  phase=armed
  write_state
  event "trying $try"
  board_try "$try"
}

preflight() {
  settle
  [ -z "$pending" ] || die "expected no system on trial, got $pending: it must be kept or given up first"
  board_preflight
}

backend() {
  mkdir -p "$STATE_DIR"
  exec 9>"$STATE_DIR/lock"
  flock 9
  case "${1:-}" in
    get-primary) get_primary ;;
    set-primary) set_primary "${2:-}" ;;
    get-state) get_state "${2:-}" ;;
    set-state) set_state "${2:-}" "${3:-}" ;;
    get-current) board_booted ;;
    boot-check) boot_check ;;
    preflight) preflight ;;
    on-trial) settle; [ -n "$pending" ] && [ "$pending" = "$(board_booted)" ] ;;
    *) die "expected get-primary, set-primary, get-state, set-state, get-current, on-trial, boot-check or preflight" ;;
  esac
}

# The slot that the kernel was started with: rauc.slot=A on its command line.
slot_of_cmdline() {
  local word
  for word in $(cat "$CMDLINE"); do
    case "$word" in rauc.slot=A | rauc.slot=B) echo "${word#rauc.slot=}"; return ;; esac
  done
  die "expected rauc.slot=A or rauc.slot=B on the kernel's command line, got none"
}
