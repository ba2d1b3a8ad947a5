# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# The guest's kernel, of one series: Debian's image and modules, and its source prepared for the build of modules.

. "$SCRIPTS/lib/root.sh"
. "$SCRIPTS/lib/series.sh"

# choose_series SERIES: set SERIES, for other scripts too, OUTPUT and HOME_OF_KERNEL.
choose_series() {
	[[ " ${ALL_SERIES[*]} " = *" $1 "* ]] ||
		die "the driver is not written for Linux $1" "SERIES can be: ${ALL_SERIES[*]}"
	export SERIES=$1
	# What is made for one series only, or with it.
	OUTPUT=$BUILD
	[ "$SERIES" = "${ALL_SERIES[0]}" ] || OUTPUT=$BUILD/linux-$SERIES
	# What belongs to a series and a way to prepare it.
	HOME_OF_KERNEL=$HOME_OF_ROOT/linux-$SERIES-$(digest "$SCRIPTS/steps/fetch-kernel" "$SCRIPTS/steps/prepare-kernel" \
		"$SCRIPTS/steps/prepare-source" "$SCRIPTS/steps/unpack-source")
}

choose_series "${SERIES:-${ALL_SERIES[0]}}"

# ensure_kernel: set RELEASE, KERNEL, KERNEL_PACKAGES, KERNEL_SOURCE and STOCK_MODULE.
ensure_kernel() {
	local prepared=$HOME_OF_KERNEL/prepared
	KERNEL_PACKAGES=$HOME_OF_KERNEL/packages
	ensure_root
	if [ ! -d "$prepared" ]; then
		lock "$CACHE/lock"
		[ -d "$KERNEL_PACKAGES" ] || fetch_kernel
		[ -d "$prepared" ] || prepare_kernel "$prepared"
		unlock
	fi
	RELEASE=$(cd "$prepared/image/usr/lib/modules" && echo *)
	KERNEL=$prepared/image/usr/lib/modules/$RELEASE/vmlinuz
	KERNEL_SOURCE=$prepared/source
	STOCK_MODULE=$prepared/virtio_balloon.ko
}

fetch_kernel() {
	local part=$KERNEL_PACKAGES.part mirror
	mirror=$(find_mirror)
	mkdir -p "$part"
	apt_proxies "$mirror" >"$part/apt.conf"
	debian_source "$mirror" "$SUITE-backports" >"$part/sources.list"
	step "$CACHE/log/fetch-$SERIES.log" "Fetching Linux $SERIES from $mirror (220 MB)" \
		"$SCRIPTS/in-root" "$SCRIPTS/steps/fetch-kernel" "$SERIES" "$part"
	mv -T "$part" "$KERNEL_PACKAGES"
}

prepare_kernel() {
	local part=$1.part
	check_room "$CACHE" 4
	discard "$part"
	mkdir "$part"
	step "$CACHE/log/prepare-$SERIES.log" "Preparing Linux $SERIES for modules (about 3 min on 2 processors)" \
		"$SCRIPTS/in-root" "$SCRIPTS/steps/prepare-kernel" "$KERNEL_PACKAGES" "$part"
	mv -T "$part" "$1"
}
