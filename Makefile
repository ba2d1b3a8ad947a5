# SPDX-License-Identifier: GPL-2.0-only
# The commands of this project. What they need they install and prepare; see README.md.

MAKEFLAGS += --no-print-directory

help:
	@echo 'make run       show a stock Debian guest giving memory back through page bitmaps'
	@echo '               DEVICE=qemu: of the QEMU of make qemu'
	@echo 'make check     formats, lints, host tests, KUnit tests and guest tests'
	@echo 'make check-long the same with further trials, more stress, and check-install'
	@echo 'make bench     measure the driver beside its peers; build/bench/ has the table, a picture and all figures'
	@echo '               RUNS=3 MIB=1024 ...: see docs/BENCH.md'
	@echo 'make check-install install the driver in Debian guests as README.md says, and boot them'
	@echo 'make modules   build the module, build/module/virtio-balloon-bmap.ko, for the guest'
	@echo '               KDIR=/path: for the prepared kernel tree there, and without any set-up'
	@echo 'make check-debug    guest tests in a kernel that looks for misuse of memory and locks, and for leaks'
	@echo 'make check-builtin  guest tests in a kernel that has the driver built in'
	@echo 'make check-kunit    KUnit tests in User-mode Linux'
	@echo 'make check-qemu     tests of the QEMU with page bitmaps, without a guest'
	@echo 'make tree KDIR=/path  put the driver into the kernel source there, or bring it up to date'
	@echo 'make qemu      build a QEMU whose own balloon takes page bitmaps, by the patches in host/qemu'
	@echo 'make install   in a guest: have DKMS build the driver for its kernels, and load it in place of virtio_balloon'
	@echo 'make uninstall undo that'
	@echo 'make paths     print where the kernel, the modules, QEMU and the device lie, as KEY=VALUE'
	@echo 'make clean     remove build/'
	@echo 'make distclean remove build/ and the cache'
	@echo
	@echo 'SERIES=7.2 make COMMAND: with that series of Linux, and build/linux-7.2/ instead of build/'

run:
	@scripts/run "$(DEVICE)"

check:
	@scripts/check

check-long:
	@VBB_LONG=1 VBB_STRESS_SECONDS=60 scripts/check
	@scripts/check-install

check-debug:
	@scripts/check-guest debug

check-builtin:
	@scripts/check-guest builtin

check-kunit:
	@scripts/check-kunit

check-qemu:
	@scripts/check-qemu

qemu:
	@scripts/qemu

bench:
	@scripts/bench $(MAKEOVERRIDES)

check-install:
	@scripts/check-install

tree:
	@scripts/place-in-tree "$(KDIR)"

modules:
	@scripts/module $(MAKEOVERRIDES)

install:
	@scripts/install $(MAKEOVERRIDES)

uninstall:
	@scripts/uninstall $(MAKEOVERRIDES)

paths:
	@scripts/paths

clean:
	rm -rf build

distclean:
	@scripts/distclean

.PHONY: help run bench check check-long check-debug check-builtin check-kunit check-qemu check-install qemu tree \
	modules install uninstall paths clean distclean
