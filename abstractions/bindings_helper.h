/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the driver uses of the kernel and the kernel crate's bindings do not have.
 */
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ring.h>
#include <linux/balloon.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/oom.h>
#include <linux/page_reporting.h>
#include <linux/shrinker.h>
#include <linux/vmstat.h>

#include "compat.h"
#include "helpers.h"

/* Where the links of a page are in struct page. */
const unsigned long BALLOON_BMAP_PAGE_LRU = offsetof(struct page, lru);
