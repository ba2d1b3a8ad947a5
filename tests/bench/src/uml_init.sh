#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# First process of User-mode Linux: has the driver that the command line names serve the balloon, and tells how
# many pages are in it, as the kernel counts them, once a second.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys

for device in /sys/bus/virtio/devices/*; do
	read -r kind <"$device/device"
	[ "$kind" = 0x0005 ] || continue
	name=${device##*/}
	drivers=/sys/bus/virtio/drivers
	if [ ! -e "$drivers/$balloon_driver/$name" ]; then
		[ ! -e "$device/driver" ] || echo "$name" >"$device/driver/unbind"
		echo "$name" >"$drivers/$balloon_driver/bind"
	fi
	[ -e "$drivers/$balloon_driver/$name" ] && echo "balloon: served"
done
while true; do
	while read -r field value; do
		[ "$field" != nr_balloon_pages ] || echo "balloon: $value pages"
	done </proc/vmstat
	$busybox sleep 1
done
