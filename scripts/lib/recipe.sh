# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# What the root is made of. A change here makes a new root.

# install-kernel takes the newest kernel of this series that the archive has; the driver is written for it.
SERIES=7.3
SUITE=trixie

PACKAGES=(
	# the kernel module
	make gcc libc6-dev flex bison bc libelf-dev libssl-dev python3 xz-utils cpio kmod pahole rsync
	rustc rust-src bindgen clang libclang-dev rustfmt rust-clippy
	# the host side
	cargo ca-certificates git
	# the guest
	qemu-system-x86 busybox-static
)

# These come from backports; all else is the stable release's.
BACKPORTS='linux-* qemu-* seabios ipxe-qemu'
