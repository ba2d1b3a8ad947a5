#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# First process of the guest: mounts what the agent and the driver need, then becomes the agent.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t debugfs debugfs /sys/kernel/debug
/bin/busybox mount -t tmpfs -o size=100% tmpfs /tmp
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
# A driver that is built in has the balloon already: a trial has it bound when its time has come.
for device in /sys/bus/virtio/drivers/virtio_balloon_bmap/virtio*; do
	[ ! -e "$device" ] || echo "${device##*/}" >"${device%/*}/unbind"
done
exec /bin/guest-agent
