# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# What 'make install' leaves in a guest, and what it and 'make uninstall' have in common.

NAME=virtio-balloon-bmap
# With a dash and the version, the source that DKMS builds.
DKMS_SOURCE=/usr/src/$NAME
MODPROBE_CONF=/etc/modprobe.d/$NAME.conf
INITRAMFS_HOOK=/etc/initramfs-tools/hooks/$NAME
DRACUT_CONF=/etc/dracut.conf.d/$NAME.conf
LOG=/var/log/$NAME.log

# take_destdir [DESTDIR=DIRECTORY]: set DESTDIR, below which files are put instead of into this system.
take_destdir() {
	DESTDIR=''
	local variable
	for variable; do
		case $variable in
		DESTDIR=*) DESTDIR=${variable#DESTDIR=} ;;
		*) die "unknown: $variable" "Only DESTDIR=/directory may be given." ;;
		esac
	done
	[ -z "$DESTDIR" ] || DESTDIR=$(realpath -ms "$DESTDIR")
}

# check_guest TARGET: what changing this system takes.
check_guest() {
	[ "$(id -u)" -eq 0 ] || die "only root may do this" "Run: sudo make $1"
	command -v dkms >/dev/null || die "missing: dkms" "Run: apt install dkms"
}

# versions: print those that DKMS knows of.
versions() {
	find "/var/lib/dkms/$NAME" -mindepth 2 -maxdepth 2 -name source -printf '%h\n' 2>/dev/null | sed 's,.*/,,'
}

# remove_version VERSION: from all kernels.
remove_version() {
	dkms remove -m "$NAME" -v "$1" --all
	rm -rf "${DKMS_SOURCE:?}-$1"
}

# refresh_initramfs: one that has a balloon driver gets the one that is now to be loaded, by initramfs-tools or
# dracut, of which a system has one at most.
refresh_initramfs() {
	local image release list make
	for image in /boot/initrd.img-*; do
		[ -e "$image" ] || continue
		release=${image#/boot/initrd.img-}
		if command -v update-initramfs >/dev/null; then
			list=(lsinitramfs "$image") make=(update-initramfs -u -k "$release")
		elif command -v dracut >/dev/null; then
			list=(lsinitrd "$image") make=(dracut --force --quiet "$image" "$release")
		else
			return 0
		fi
		if grep -q '/virtio[-_]balloon' <<<"$("${list[@]}")"; then
			step "$LOG" "Making $image anew" "${make[@]}"
		fi
	done
}

# use_driver DRIVER: have it drive this guest's balloon, now.
use_driver() {
	local driver=$1 other device
	for other in virtio_balloon_bmap virtio_balloon; do
		[ ! -e "/sys/module/$other" ] || rmmod "$other" || {
			say "==> $other cannot be unloaded; $driver takes over at the next boot"
			return
		}
	done
	device=$(grep -lx 0x0005 /sys/bus/virtio/devices/*/device 2>/dev/null | head -n 1) || {
		say "==> There is no balloon device; $driver is loaded when there is one"
		return
	}
	if ! modprobe --ignore-install "$driver" || [[ $(realpath "${device%/device}/driver") != */"$driver" ]]; then
		modprobe --ignore-install virtio_balloon || true
		die "$driver does not take the balloon" "The kernel's log (dmesg) may say why."
	fi
	say "==> $driver drives the balloon"
}
