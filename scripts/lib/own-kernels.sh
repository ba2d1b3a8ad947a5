# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # used by the sourcing script
# Kernels of our own, for tests: small ones with the driver in their tree, of the distribution's source with the
# patches in patches/linux (but for the one that these are measured against), and of the configurations in
# scripts/kernels. They are built beside the prepared source, in directories named after their configuration. All
# clones that share the cache take turns with them, each with its own driver: then only that is built anew, and what
# it is linked into.

. "$SCRIPTS/lib/kernel.sh"

# ensure_own_kernel NAME: set OWN_KERNEL to the directory that it is built in, and have its products in OUTPUT/NAME.
ensure_own_kernel() {
	local title variable configurations goals products own source product
	local patches=("$TOP"/patches/linux/*.patch)
	case $1 in
	debug)
		title='a kernel with debugging (about 6 min on 2 processors the first time)'
		variable=CC=clang configurations=(guest debug) goals=(bzImage modules)
		products=(arch/x86/boot/bzImage drivers/virtio/virtio_balloon.ko
			drivers/virtio/balloon_bmap/virtio-balloon-bmap.ko)
		;;
	builtin)
		title='a kernel with the driver built in (about 4 min on 2 processors the first time)'
		variable=CC=gcc configurations=(guest builtin) goals=(bzImage) products=(arch/x86/boot/bzImage)
		;;
	kunit)
		title='User-mode Linux with KUnit (about 3 min on 2 processors the first time)'
		variable=ARCH=um configurations=(kunit) goals=(vmlinux) products=(vmlinux)
		;;
	uml)
		title='User-mode Linux with both drivers (about 4 min on 2 processors the first time)'
		variable=ARCH=um configurations=(uml) goals=(vmlinux) products=(vmlinux)
		;;
	uml-unpatched)
		title='User-mode Linux without patches (about 4 min on 2 processors the first time)'
		variable=ARCH=um configurations=(uml) goals=(vmlinux) products=(vmlinux) patches=()
		;;
	*)
		die "there is no kernel of our own named $1; there are debug, builtin, kunit, uml and uml-unpatched"
		;;
	esac
	configurations=("${configurations[@]/%/.config}")
	configurations=("${configurations[@]/#/$SCRIPTS/kernels/}")

	ensure_kernel
	own=$HOME_OF_ROOT/own-$RELEASE
	OWN_KERNEL=$own/$1-$(cat "${configurations[@]}" | sha256sum | cut -c 1-12)
	source=$own/source-$(cat /dev/null "${patches[@]}" | sha256sum | cut -c 1-12)
	lock "$own/lock"
	ensure_own_source "$source" "${patches[@]}"
	check_room "$own" 2
	"$SCRIPTS/place-in-tree" "$source"
	mkdir -p "$OWN_KERNEL" "$OUTPUT/$1"
	cat "${configurations[@]}" >"$OWN_KERNEL/wanted.config"
	step "$CACHE/log/${OWN_KERNEL##*/}.log" "Building $title" \
		"$SCRIPTS/in-root" "$SCRIPTS/steps/make-kernel" "$source" "$OWN_KERNEL" "$variable" "${goals[@]}"
	for product in "${products[@]}"; do
		cp "$OWN_KERNEL/$product" "$OUTPUT/$1/part"
		mv "$OUTPUT/$1/part" "$OUTPUT/$1/${product##*/}"
	done
	unlock
}

# ensure_own_source DIRECTORY [PATCH...]: the prepared source will not do, since what a build has left in a source
# keeps others from building it elsewhere.
ensure_own_source() {
	local source=$1
	shift
	[ ! -d "$source" ] || return 0
	check_room "${source%/*}" 4
	discard "$source.part"
	step "$CACHE/log/own-source.log" "Unpacking the source of Linux $RELEASE" \
		"$SCRIPTS/in-root" "$SCRIPTS/steps/unpack-patched" "$KERNEL_PACKAGES" "$source.part" "$@"
	mv -T "$source.part" "$source"
}
