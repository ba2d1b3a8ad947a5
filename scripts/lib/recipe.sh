# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# What the root is made of. A change here makes a new root.

SUITE=trixie

# What the build of a kernel module takes, in the root as in a guest that builds its own.
MODULE_PACKAGES=(
	make gcc libc6-dev flex bison bc libelf-dev libssl-dev python3 xz-utils cpio kmod pahole rsync
	rustc rust-src bindgen
)

PACKAGES=(
	"${MODULE_PACKAGES[@]}"
	# its lints, and kernels of our own
	rustfmt rust-clippy clang
	# the host side
	cargo ca-certificates git
	# the guest
	qemu-system-x86 busybox-static e2fsprogs
)

# These come from backports; all else is the stable release's.
BACKPORTS='linux-* qemu-* seabios ipxe-qemu'
