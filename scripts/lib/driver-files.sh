# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# The driver: what a kernel's build takes of this repository, and DKMS and a kernel's source are given.

DRIVER_FILES=(
	Kbuild Kconfig
	virtio_balloon_bmap.rs bitmap.rs resp_encoder.rs compaction.rs
	resp_encoder abstractions messages balloon tests/kunit
)

# list_driver_files: print each of the files, relative to TOP.
list_driver_files() {
	(cd "$TOP" && find "${DRIVER_FILES[@]}" -type f | sort)
}
