# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The root: a Debian tree with the tools of all builds and QEMU. All else is built in it.

. "$SCRIPTS/lib/host.sh"
. "$SCRIPTS/lib/mirror.sh"
. "$SCRIPTS/lib/recipe.sh"

# digest FILE...: print what stands for the files' contents, apart from comments.
digest() {
	sed '/^[[:space:]]*#/d' "$@" | sha256sum | cut -c 1-12
}

# What belongs to one recipe; nothing in it depends on the clone.
HOME_OF_ROOT=$CACHE/$SUITE-$(digest "$SCRIPTS/lib/recipe.sh")
ROOT=$HOME_OF_ROOT/root

ensure_root() {
	[ ! -d "$ROOT" ] || return 0
	check_debian
	check_host
	lock "$CACHE/lock"
	if [ ! -d "$ROOT" ]; then
		check_room "$CACHE" 6
		discard "$HOME_OF_ROOT"
		make_root
	fi
	unlock
}

# discard PATH...: files of an unprivileged user's root may belong to the user's other IDs.
discard() {
	as_root rm -rf --one-file-system -- "$@"
}

make_root() {
	local part=$HOME_OF_ROOT/root.part mirror
	mirror=$(find_mirror)
	mkdir -p "$HOME_OF_ROOT"
	apt_proxies "$mirror" >"$HOME_OF_ROOT/apt.conf"
	printf 'Package: %s\nPin: release n=%s-backports\nPin-Priority: 600\n' "$BACKPORTS" "$SUITE" >"$HOME_OF_ROOT/preferences"
	step "$CACHE/log/root.log" "Making the Debian $SUITE root from $mirror (450 MB to fetch, about 1 min)" \
		run_mmdebstrap "$mirror" "$part"
	mv -T "$part" "$ROOT"
}

run_mmdebstrap() {
	local mirror=$1 part=$2 suite
	# shellcheck disable=SC2016 # $1 is the hook's
	for suite in "$SUITE" "$SUITE-updates" "$SUITE-backports"; do
		debian_source "$mirror" "$suite"
	done | as_root mmdebstrap --mode=root --variant=apt --format=directory \
		--aptopt="$HOME_OF_ROOT/apt.conf" --aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--setup-hook='mkdir -p "$1/etc/apt/preferences.d"' \
		--setup-hook="copy-in '$HOME_OF_ROOT/preferences' /etc/apt/preferences.d" \
		--include="$(IFS=,; echo "${PACKAGES[*]}")" \
		"$SUITE" "$part" -
}
