# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# Sourced by every script here: where things lie, messages, locks and long steps.

set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
# A service may have none; bash then takes ~ from the user's entry.
export HOME="${HOME:-$(unset HOME && echo ~)}"

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
SCRIPTS=$TOP/scripts
BUILD=$TOP/build
CACHE=$(realpath -ms "${VBB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/virtio-balloon-bmap}")

# All messages go to standard error: standard output is for results.
say() {
	printf '%s\n' "$*" >&2
}

# die MESSAGE [HINT...]: one line a hint.
die() {
	printf 'error: %s\n' "$1" >&2
	shift
	local hint
	for hint; do
		[ -z "$hint" ] || printf '       %s\n' "$hint" >&2
	done
	exit 1
}

[[ $TOP$CACHE != *[[:space:]:]* ]] ||
	die "Linux cannot be built below a path with a space or a colon, as $TOP or $CACHE has" \
		"Move the clone, or set VBB_CACHE for the cache."

# check_room DIRECTORY GIB
check_room() {
	local free
	mkdir -p "$1" || die "cannot create $1"
	free=$(($(df --output=avail --block-size=1M "$1" | tail -n 1) / 1024))
	[ "$free" -ge "$2" ] ||
		die "$1 has $free GiB free; $2 GiB are needed" \
			"$([ "$1" != "$CACHE" ] || echo 'VBB_CACHE=/another/place moves the cache.')"
}

# lock FILE: be the only run that makes what FILE guards, until unlock. Children inherit the lock, so that
# it outlives a killed script for as long as something of it still works on the files.
lock() {
	mkdir -p "${1%/*}" || die "cannot create ${1%/*}"
	exec 9>"$1"
	flock -n 9 || {
		say "==> Waiting for another run that is at work in ${1%/*}"
		flock 9
	}
}

unlock() {
	exec 9>&-
}

# step LOG TITLE COMMAND...: one long step of the set-up. Its output goes to LOG; on a terminal the time and
# the newest line are shown. The command runs in a process group of its own, so that whatever ends this
# script ends all of it.
step() {
	local log=$1 title=$2 job status=0 started=$SECONDS
	shift 2
	say "==> $title"
	mkdir -p "${log%/*}"
	set -m
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null &
	job=$!
	set +m
	trap 'stop_step "$job"; say "Interrupted. The next run goes on from here."; exit 130' INT TERM HUP
	show_progress "$job" "$log" "$started"
	wait "$job" || status=$?
	trap - INT TERM HUP
	if [ "$status" -ne 0 ]; then
		tail -n 25 "$log" | sed 's/^/    | /' >&2
		die "failed: $title" "All of its output is in $log" "$(likely_cause "$log")"
	fi
	say "    done in $((SECONDS - started)) s"
}

# likely_cause LOG: what to do about failures that are not ours.
likely_cause() {
	if grep -qE 'Temporary failure resolving|Could not (connect|resolve)|onnection timed out|Unable to connect' "$1"; then
		echo 'The network does not answer: check it, or set up the proxy in the configuration of apt (http_proxy works too).'
	elif grep -qE 'does not have a Release file| 4[0-9][0-9]  [A-Z]' "$1"; then
		echo 'The mirror lacks something: try another, by DEBIAN_MIRROR=address.'
	elif grep -qE 'NO_PUBKEY|EXPKEYSIG' "$1"; then
		echo 'The keys of the Debian archive are too old: sudo apt-get install debian-archive-keyring'
	elif grep -q 'No space left on device' "$1"; then
		echo "The disk is full; VBB_CACHE=/another/place moves the cache."
	fi
}

stop_step() {
	local tries=0
	kill -TERM -- "-$1" 2>/dev/null || true
	while kill -0 -- "-$1" 2>/dev/null && [ $((tries += 1)) -le 50 ]; do
		sleep 0.1
	done
	kill -KILL -- "-$1" 2>/dev/null || true
}

show_progress() {
	local job=$1 log=$2 started=$3 seconds width line next=60
	while kill -0 "$job" 2>/dev/null; do
		seconds=$((SECONDS - started))
		if [ -t 2 ]; then
			width=$(stty size <&2 2>/dev/null | cut -d ' ' -f 2) || true
			[ "${width:-0}" -ge 40 ] || width=80
			line=$(tail -c 400 "$log" | tr '\r\t' '\n ' | tr -cd '[:print:]\n' | grep . | tail -n 1) || true
			printf '\r    %d:%02d  %s\033[K' $((seconds / 60)) $((seconds % 60)) "${line:0:width-14}" >&2
		elif [ "$seconds" -ge "$next" ]; then
			say "    still at it after $seconds s"
			next=$((seconds + 60))
		fi
		sleep 0.3
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
}
