# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the machine itself must have: a supported system, a few packages, the right to make namespaces, room.

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# The unshare(1) command that makes a command root of a mount namespace of its own, and what it takes.
if [ "$(id -u)" -eq 0 ]; then
	NAMESPACE=(unshare --mount)
	NAMESPACE_PACKAGES=(mount=mount)
else
	NAMESPACE=(unshare --user --map-auto --map-root-user --mount)
	NAMESPACE_PACKAGES=(mount=mount uidmap=newuidmap)
fi

# as_root COMMAND...: with a process namespace as well, which ends with its first process.
as_root() {
	"${NAMESPACE[@]}" --pid --fork --kill-child -- "$@"
}

# check_host: what running anything in the root takes.
check_host() {
	[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
		die "the guest and its tools are built for Linux on x86-64; this machine is $(uname -s) $(uname -m)" \
			"'make modules KDIR=/path/to/kernel' works elsewhere."
	need "${NAMESPACE_PACKAGES[@]}"
	check_namespaces
}

# check_debian: what making the root takes.
check_debian() {
	check_distribution
	need "${NAMESPACE_PACKAGES[@]}" mmdebstrap=mmdebstrap debian-archive-keyring="$KEYRING"
}

check_distribution() {
	local ID='' VERSION_ID='' PRETTY_NAME='this system'
	# shellcheck source=/dev/null
	. /etc/os-release
	if [ "$ID" = debian ] && [ "${VERSION_ID:-13}" -ge 12 ]; then
		return
	fi
	[[ -n ${DEBIAN_MIRROR-} && -x /usr/bin/apt-get ]] ||
		die "$PRETTY_NAME is not supported; Debian 12 and 13 are" \
			"Another system with apt-get and mmdebstrap may do: set DEBIAN_MIRROR to the address of a Debian mirror."
}

# need PACKAGE=PROGRAM_OR_FILE...: install what is missing where we may, or say what to install.
need() {
	local pair missing=()
	for pair; do
		command -v "${pair#*=}" >/dev/null || [ -e "${pair#*=}" ] || missing+=("${pair%%=*}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" -eq 0 ] || die "missing on this machine: ${missing[*]}" "Run: sudo apt-get install ${missing[*]}"
	step "$BUILD/log/host.log" "Installing ${missing[*]} on this machine (about 20 s)" install_packages "${missing[@]}"
}

# An index that is there already may be enough, and a broken foreign source need not matter.
install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	if ! apt-get install --yes --no-install-recommends "$@"; then
		apt-get update || true
		apt-get install --yes --no-install-recommends "$@"
	fi
}

check_namespaces() {
	local said
	said=$(as_root true 2>&1) && return
	if [ "$(id -u)" -eq 0 ]; then
		die "root may not make a mount namespace here: $said" \
			"In a container, give it CAP_SYS_ADMIN (for example: docker run --privileged)."
	fi
	for file in /etc/subuid /etc/subgid; do
		grep -qE "^($(id -un)|$(id -u)):" "$file" 2>/dev/null ||
			die "$file has no range for $(id -un)" \
				"Run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
	done
	[ "$(cat /proc/sys/kernel/unprivileged_userns_clone 2>/dev/null)" != 0 ] ||
		die "user namespaces are disabled" "Run: sudo sysctl kernel.unprivileged_userns_clone=1 (or run as root)."
	[ "$(cat /proc/sys/user/max_user_namespaces)" -gt 0 ] ||
		die "user namespaces are disabled" "Run: sudo sysctl user.max_user_namespaces=10000 (or run as root)."
	die "cannot make a user namespace: $said" "Running as root needs none."
}
