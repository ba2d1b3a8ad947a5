# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the steps that try the installation in a guest's tree have in common.

# status: what DKMS has of the driver.
status() {
	dkms status virtio-balloon-bmap
}

# expect WHAT COMMAND...
expect() {
	local what=$1
	shift
	say "==> expected: $what"
	"$@" || die "not so: $what" "$(status)"
}

# has_drivers LIST IMAGE DRIVER...: an initramfs, whose files the command LIST prints, has these, and no other balloon
# driver.
has_drivers() {
	[ "$("$1" "$2" | sed -n 's,.*/\(virtio[-_]balloon[^.]*\)\.ko.*,\1,p' | sort)" = "$(printf '%s\n' "${@:3}")" ]
}
