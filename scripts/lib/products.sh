# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# All that a guest with this driver and this device needs, built where it is missing or older than its source.

. "$SCRIPTS/lib/kernel.sh"

# ensure_products: set KERNEL, MODULE, STOCK_MODULE, QEMU, DEVICE and ROOT, and what ensure_kernel sets.
ensure_products() {
	ensure_kernel
	MODULE=$BUILD/module/virtio-balloon-bmap.ko
	"$SCRIPTS/module"
	DEVICE=$BUILD/cargo/x86_64-unknown-linux-gnu/release/vhost-device-balloon
	"$SCRIPTS/in-root" cargo build --release -p vhost-device-balloon >&2
	QEMU=$BUILD/qemu
	write_qemu
}

# ensure_faulty_modules: set FAULTY_MODULES, a directory with a module for each fault of driver/fault.rs.
ensure_faulty_modules() {
	local fault
	FAULTY_MODULES=$BUILD/faulty-modules
	for fault in first_bitmap more_bitmaps; do
		"$SCRIPTS/module" MO="$FAULTY_MODULES/$fault" BALLOON_BMAP_FAULTS="$fault"
		ln -sf "$fault/virtio-balloon-bmap.ko" "$FAULTY_MODULES/$fault.ko"
	done
}

# QEMU runs outside the root too, by the root's own loader.
write_qemu() {
	cat >"$QEMU.$$" <<-END
		#!/bin/sh
		root=$(quote "$ROOT")
		exec "\$root/lib64/ld-linux-x86-64.so.2" --library-path "\$root/usr/lib/x86_64-linux-gnu" \\
			"\$root/usr/bin/qemu-system-x86_64" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
	END
	chmod +x "$QEMU.$$"
	mv "$QEMU.$$" "$QEMU"
}

# quote WORD: print it so that a shell reads it as one word, plain where it can be.
quote() {
	if [[ $1 =~ ^[A-Za-z0-9_./+:@%=-]+$ ]]; then
		printf '%s' "$1"
	else
		printf '%q' "$1"
	fi
}
