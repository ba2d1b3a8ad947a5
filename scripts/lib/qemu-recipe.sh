# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# What the root is made of that builds QEMU. A change here makes a new one.

QEMU_BUILD_PACKAGES=(
	gcc libc6-dev make ninja-build meson python3-venv python3-pycotap pkg-config bzip2 flex bison dpkg-dev
	libglib2.0-dev zlib1g-dev libpixman-1-dev libfdt-dev
)
