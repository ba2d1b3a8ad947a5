# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# All that a guest with this driver and this device needs, built where it is missing or older than its source.

. "$SCRIPTS/lib/own-kernels.sh"
. "$SCRIPTS/lib/qemu.sh"

# ensure_products: set KERNEL, MODULE, STOCK_MODULE, QEMU, DEVICE and ROOT, and what ensure_kernel sets. VBB_GUEST
# chooses a kernel of our own instead of the distribution's: debug, or builtin, which has no modules.
ensure_products() {
	if [ -z "${VBB_GUEST-}" ]; then
		ensure_kernel
		MODULE=$OUTPUT/module/virtio-balloon-bmap.ko
		"$SCRIPTS/module"
	else
		ensure_own_kernel "$VBB_GUEST"
		KERNEL=$OUTPUT/$VBB_GUEST/bzImage
		MODULE=$OUTPUT/$VBB_GUEST/virtio-balloon-bmap.ko
		STOCK_MODULE=$OUTPUT/$VBB_GUEST/virtio_balloon.ko
	fi
	DEVICE=$BUILD/cargo/x86_64-unknown-linux-gnu/release/vhost-device-balloon
	"$SCRIPTS/in-root" cargo build --release -p vhost-device-balloon >&2
	QEMU=$BUILD/qemu
	write_qemu "$QEMU" "$ROOT/usr/bin/qemu-system-x86_64"
}

# exec_with_products COMMAND...: in the root, with the variables that tests/guest reads.
exec_with_products() {
	export VBB_KERNEL=$KERNEL VBB_MODULE=$MODULE VBB_STOCK_MODULE=$STOCK_MODULE VBB_QEMU=$QEMU VBB_DEVICE=$DEVICE
	export VBB_BUSYBOX=$ROOT/usr/bin/busybox VBB_BUILD=$OUTPUT
	exec "$SCRIPTS/in-root" "$@"
}

# ensure_faulty_modules: set FAULTY_MODULES, a directory with a module for each fault of messages/fault.rs, for the
# kernel of ensure_products.
ensure_faulty_modules() {
	local fault build=("$SCRIPTS/module")
	FAULTY_MODULES=$OUTPUT/faulty-modules
	if [ "${VBB_GUEST-}" = debug ]; then
		FAULTY_MODULES=$OUTPUT/debug/faulty-modules
		build=("$SCRIPTS/in-root" "$SCRIPTS/module" KDIR="$OWN_KERNEL" CC=clang)
	fi
	for fault in first_bitmap more_bitmaps dead_hint_queue; do
		"${build[@]}" MO="$FAULTY_MODULES/$fault" BALLOON_BMAP_FAULTS="$fault"
		ln -sf "$fault/virtio-balloon-bmap.ko" "$FAULTY_MODULES/$fault.ko"
	done
}
