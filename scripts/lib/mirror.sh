# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Where Debian packages come from: the mirror and the proxies that this machine's own apt uses.

# find_mirror: print the address that serves the main component of this machine's Debian release.
find_mirror() {
	local release uris candidates address
	if [ -n "${DEBIAN_MIRROR-}" ]; then
		printf '%s\n' "$DEBIAN_MIRROR"
		return
	fi
	# shellcheck source=/dev/null
	release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
	# apt reads its own configuration, in whichever form it is written, and prints what it would fetch.
	uris=$(apt-get update --print-uris -o Debug::NoLocking=1 2>/dev/null)
	candidates=$(sed -nE "s,^'([^']*)/dists/($release|stable|oldstable|testing)/main/binary-amd64/.*,\1,p" <<<"$uris" |
		sort -u)
	# A foreign archive may bear Debian's release name too, but it has no updates suite.
	for address in $candidates; do
		if grep -q "^'$address/dists/[a-z]*-updates/" <<<"$uris"; then
			candidates=$address
			break
		fi
	done
	address=${candidates%%$'\n'*}
	# A mirror list (as in cloud images) names the real one.
	[[ $address != mirror+file:* ]] || address=$(awk '!/^#/ && NF { print $1; exit }' "${address#mirror+file:}")
	[ -n "$address" ] ||
		die "apt's configuration names no Debian mirror (main of ${release:-this release})" \
			"Set DEBIAN_MIRROR to the address of one."
	printf '%s\n' "${address%/}"
}

# debian_source MIRROR SUITE: print the line of a sources.list.
debian_source() {
	printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$1" "$2"
}

# apt_proxies MIRROR: print apt configuration lines with the proxies of this machine's apt.
apt_proxies() {
	local detect='' proxy
	apt-config dump --format '%f "%v";%n' | grep -iE '^Acquire::(http|https)::Proxy(::[^ ]*)? "..*";$' || true
	eval "$(apt-config shell detect Acquire::http::Proxy-Auto-Detect)"
	[ -n "$detect" ] || eval "$(apt-config shell detect Acquire::http::ProxyAutoDetect)"
	if [ -n "$detect" ] && proxy=$("$detect" "$1") && [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
		printf 'Acquire::http::Proxy "%s";\n' "$proxy"
	fi
}
