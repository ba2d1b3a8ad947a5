# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# The guest's kernel: what the root holds of it, and its source prepared for the build of modules.

. "$SCRIPTS/lib/root.sh"

# ensure_kernel: set RELEASE, KERNEL, MODULES_DIR, KERNEL_SOURCE and STOCK_MODULE.
ensure_kernel() {
	local prepared
	ensure_root
	RELEASE=$(cd "$ROOT/usr/lib/modules" && echo *)
	MODULES_DIR=$ROOT/usr/lib/modules/$RELEASE
	KERNEL=$MODULES_DIR/vmlinuz
	prepared=$HOME_OF_ROOT/linux-$RELEASE
	KERNEL_SOURCE=$prepared/source
	STOCK_MODULE=$prepared/virtio_balloon.ko
	[ ! -d "$prepared" ] || return 0
	lock "$CACHE/lock"
	if [ ! -d "$prepared" ]; then
		check_room "$CACHE" 4
		discard "$prepared.part"
		mkdir "$prepared.part"
		step "$CACHE/log/kernel.log" "Preparing the source of Linux $RELEASE for modules (about 3 min on 2 processors)" \
			"$SCRIPTS/in-root" "$SCRIPTS/lib/prepare-kernel" "$RELEASE" "$prepared.part"
		mv -T "$prepared.part" "$prepared"
	fi
	unlock
}
