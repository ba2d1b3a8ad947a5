# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# QEMU with the patches in host/qemu: the stable release's, built in a root of its own, so that only who wants
# this QEMU pays for what its build takes.

. "$SCRIPTS/lib/root.sh"
. "$SCRIPTS/lib/qemu-recipe.sh"

QEMU_PATCHES=("$TOP"/host/qemu/*.patch)

HOME_OF_QEMU=$CACHE/$SUITE-qemu-$(digest "$SCRIPTS/lib/qemu-recipe.sh" "$SCRIPTS/steps/fetch-qemu")
QEMU_ROOT=$HOME_OF_QEMU/root
QEMU_SOURCE=$HOME_OF_QEMU/source
NATIVE_QEMU=$HOME_OF_QEMU/qemu-$(cat "$SCRIPTS/steps/build-qemu" "${QEMU_PATCHES[@]}" | sha256sum | cut -c 1-12)

# ensure_native_qemu: have NATIVE_QEMU, the directory of the build, and set QEMU_NATIVE to what runs it.
ensure_native_qemu() {
	QEMU_NATIVE=$BUILD/native/qemu-system-x86_64
	ensure_root
	if [ ! -d "$NATIVE_QEMU" ]; then
		check_debian
		lock "$HOME_OF_QEMU/lock"
		[ -d "$QEMU_ROOT" ] || make_qemu_root
		[ -d "$QEMU_SOURCE" ] || fetch_qemu
		[ -d "$NATIVE_QEMU" ] || build_qemu
		unlock
	fi
	write_qemu "$QEMU_NATIVE" "$NATIVE_QEMU/qemu-system-x86_64"
}

# write_qemu FILE PROGRAM: make the file run the program, outside the root too, by the root's own loader and with its
# firmware.
write_qemu() {
	mkdir -p "${1%/*}"
	cat >"$1.$$" <<-END
		#!/bin/sh
		root=$(quote "$ROOT")
		exec "\$root/lib64/ld-linux-x86-64.so.2" --library-path "\$root/usr/lib/x86_64-linux-gnu" \\
			$(quote "$2") -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
	END
	chmod +x "$1.$$"
	mv "$1.$$" "$1"
}

# quote WORD: print it so that a shell reads it as one word, plain where it can be.
quote() {
	if [[ $1 =~ ^[A-Za-z0-9_./+:@%=-]+$ ]]; then
		printf '%s' "$1"
	else
		printf '%q' "$1"
	fi
}

make_qemu_root() {
	local mirror
	check_room "$CACHE" 3
	mirror=$(find_mirror)
	discard "$QEMU_ROOT.part"
	apt_proxies "$mirror" >"$HOME_OF_QEMU/apt.conf"
	step "$CACHE/log/qemu-root.log" "Making a root that builds QEMU, from $mirror (130 MB to fetch, about 1 min)" \
		run_mmdebstrap_for_qemu "$mirror" "$QEMU_ROOT.part"
	mv -T "$QEMU_ROOT.part" "$QEMU_ROOT"
}

run_mmdebstrap_for_qemu() {
	local suite
	for suite in "$SUITE" "$SUITE-updates"; do
		debian_source "$1" "$suite"
	done | as_root mmdebstrap --mode=root --variant=apt --format=directory \
		--aptopt="$HOME_OF_QEMU/apt.conf" --aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$(IFS=,; echo "${QEMU_BUILD_PACKAGES[*]}")" \
		"$SUITE" "$2" -
}

fetch_qemu() {
	local part=$QEMU_SOURCE.part mirror
	mirror=$(find_mirror)
	discard "$part"
	mkdir "$part"
	apt_proxies "$mirror" >"$part/apt.conf"
	debian_source "$mirror" "$SUITE" | sed 's/^deb /deb-src /' >"$part/sources.list"
	step "$CACHE/log/fetch-qemu.log" "Fetching the source of QEMU from $mirror (24 MB)" \
		in_qemu_root "$SCRIPTS/steps/fetch-qemu" "$part"
	mv -T "$part" "$QEMU_SOURCE"
}

build_qemu() {
	check_room "$CACHE" 3
	discard "$NATIVE_QEMU.part"
	mkdir "$NATIVE_QEMU.part"
	step "$CACHE/log/qemu.log" "Building QEMU (about 3 min on 2 processors)" \
		in_qemu_root "$SCRIPTS/steps/build-qemu" "$QEMU_SOURCE" "$NATIVE_QEMU.part" "${QEMU_PATCHES[@]}"
	mv -T "$NATIVE_QEMU.part" "$NATIVE_QEMU"
}

in_qemu_root() {
	"${NAMESPACE[@]}" -- "$SCRIPTS/steps/enter-root" "$QEMU_ROOT" "$TOP" "$CACHE" \
		/usr/bin/env -i -C / PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
}
