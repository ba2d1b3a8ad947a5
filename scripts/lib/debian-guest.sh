# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Debian guests as trees of files: without and with what README.md says a guest needs for the driver, ready to be
# copied and made disks of.

. "$SCRIPTS/lib/root.sh"

# What a small Debian guest has.
GUEST_PACKAGES=(systemd-sysv udev kmod initramfs-tools zstd linux-image-cloud-amd64)
# Another kernel, which is installed later and only fetched for now. So is dracut.
LATER_PACKAGES=(linux-image-amd64 linux-headers-amd64)

# readme_commands NAME: print the block of commands in README.md that bears this name.
readme_commands() {
	awk -v start="\`\`\`sh $1" '$0 == "```" { on = 0 } on; $0 == start { on = found = 1 } END { exit !found }' "$TOP/README.md"
}

# in_tree TREE SHOWN COMMAND...: run a command in a tree, with the machine's directory SHOWN at /mnt.
in_tree() {
	as_root "$SCRIPTS/steps/enter-tree" "$@"
}

# ensure_debian_guests: set BARE_GUEST and READY_GUEST.
ensure_debian_guests() {
	local home
	home=$HOME_OF_ROOT/guests-$({
		cat "$SCRIPTS/lib/debian-guest.sh"
		find "$SCRIPTS/debian-guest" -type f -exec cat {} +
		readme_commands packages
	} | sha256sum | cut -c 1-12)
	BARE_GUEST=$home/bare
	READY_GUEST=$home/ready
	[ ! -d "$READY_GUEST" ] || return 0
	check_debian
	lock "$CACHE/lock"
	if [ ! -d "$BARE_GUEST" ]; then
		check_room "$CACHE" 6
		discard "$BARE_GUEST.part"
		mkdir -p "$home"
		step "$CACHE/log/bare-guest.log" "Making a Debian guest (100 MB to fetch, about 1 min)" make_bare "$BARE_GUEST.part"
		mv -T "$BARE_GUEST.part" "$BARE_GUEST"
	fi
	if [ ! -d "$READY_GUEST" ]; then
		discard "$READY_GUEST.part"
		step "$CACHE/log/ready-guest.log" "Giving it the packages of README.md (800 MB to fetch, about 3 min)" \
			make_ready "$READY_GUEST.part"
		mv -T "$READY_GUEST.part" "$READY_GUEST"
	fi
	unlock
}

make_bare() {
	local tree=$1 mirror suite
	mirror=$(find_mirror)
	apt_proxies "$mirror" >"$tree.apt.conf"
	for suite in "$SUITE" "$SUITE-updates" "$SUITE-backports"; do
		debian_source "$mirror" "$suite"
	done | as_root mmdebstrap --mode=root --variant=apt --format=directory \
		--aptopt="$tree.apt.conf" --aptopt='APT::Get::Assume-Yes "true"' \
		--include="$(IFS=,; echo "${GUEST_PACKAGES[*]}")" "$SUITE" "$tree" -
	as_root cp -rT "$SCRIPTS/debian-guest" "$tree"
	in_tree "$tree" "$TOP" systemctl enable guest-agent systemd-networkd
}

make_ready() {
	local tree=$1
	as_root cp -a "$BARE_GUEST" "$tree"
	in_tree "$tree" "$TOP" sh -ex -c "$(readme_commands packages)"
	in_tree "$tree" "$TOP" apt-get clean
	in_tree "$tree" "$TOP" apt-get install -t "$SUITE-backports" --download-only "${LATER_PACKAGES[@]}"
	in_tree "$tree" "$TOP" apt-get install --no-install-recommends --download-only dracut
}
