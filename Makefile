# SPDX-License-Identifier: GPL-2.0
# The commands of this project. What they need they install and prepare; see README.md.

MAKEFLAGS += --no-print-directory

help:
	@echo 'make run       show a stock Debian guest giving memory back through page bitmaps'
	@echo 'make check     formats, lints, host tests and guest tests'
	@echo 'make check-long the same with further trials, and more stress'
	@echo 'make modules   build the module, build/module/virtio-balloon-bmap.ko, for the guest'
	@echo '               KDIR=/path: for the prepared kernel tree there, and without any set-up'
	@echo 'make paths     print where the kernel, the modules, QEMU and the device lie, as KEY=VALUE'
	@echo 'make clean     remove build/'
	@echo 'make distclean remove build/ and the cache'

run:
	@scripts/with-guest sh -c 'cargo build --release -p guest-tests --bins && exec cargo run --quiet --release -p guest-tests --bin run'

check:
	@scripts/check

check-long:
	@VBB_LONG=1 VBB_STRESS_SECONDS=60 scripts/check

modules:
	@scripts/module $(MAKEOVERRIDES)

paths:
	@scripts/paths

clean:
	rm -rf build

distclean:
	@scripts/distclean

.PHONY: help run check check-long modules paths clean distclean
