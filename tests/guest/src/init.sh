#!/bin/sh
# First process of the guest: mounts what the agent and the driver need, then becomes the agent.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t debugfs debugfs /sys/kernel/debug
/bin/busybox mount -t tmpfs -o size=100% tmpfs /tmp
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
exec /bin/guest-agent
