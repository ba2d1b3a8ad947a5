// SPDX-License-Identifier: GPL-2.0

#include <linux/device.h>
#include <linux/list.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/poison.h>
#include <linux/shrinker.h>
#include <linux/unroll.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "helpers.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static bool page_bitmap = true;
module_param(page_bitmap, bool, 0400);
MODULE_PARM_DESC(page_bitmap, "Use page bitmaps with a device that has them");

static int set_block_order(const char *value, const struct kernel_param *param)
{
	return param_set_uint_minmax(value, param, 0, MAX_PAGE_ORDER);
}

static const struct kernel_param_ops block_order_ops = {
	.set = set_block_order,
	.get = param_get_uint,
};

static unsigned int block_order = MAX_PAGE_ORDER;
module_param_cb(block_order, &block_order_ops, &block_order, 0400);
__MODULE_PARM_TYPE(block_order, "uint");
MODULE_PARM_DESC(block_order, "log2 of the pages of the largest blocks, 0 for single pages only");

static unsigned int oom_pages = 256;
module_param(oom_pages, uint, 0600);
MODULE_PARM_DESC(oom_pages, "Pages to free each time that the guest runs out of memory");

static unsigned int floor_mib;
module_param(floor_mib, uint, 0600);
MODULE_PARM_DESC(floor_mib, "MiB of available memory below which the balloon does not grow");

bool balloon_bmap_page_bitmap(void)
{
	return page_bitmap;
}

unsigned int balloon_bmap_oom_pages(void)
{
	return READ_ONCE(oom_pages);
}

unsigned long balloon_bmap_floor_pages(void)
{
	return (unsigned long)READ_ONCE(floor_mib) << (20 - PAGE_SHIFT);
}

void balloon_bmap_can_wake_up(struct device *dev)
{
	device_set_wakeup_capable(dev, true);
}

void balloon_bmap_stay_awake(struct device *dev)
{
	pm_stay_awake(dev);
}

void balloon_bmap_relax(struct device *dev)
{
	pm_relax(dev);
}

bool balloon_bmap_has_feature(const struct virtio_device *vdev, unsigned int bit)
{
	return virtio_has_feature(vdev, bit);
}

void balloon_bmap_clear_feature(struct virtio_device *vdev, unsigned int bit)
{
	__virtio_clear_bit(vdev, bit);
}

void balloon_bmap_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

void balloon_bmap_out_of_puff(struct virtio_device *vdev, unsigned long pages)
{
	dev_info_ratelimited(&vdev->dev, "Out of puff! Can't get %lu pages\n", pages);
}

size_t balloon_bmap_full_name(const struct virtio_device *vdev, char *name, size_t size)
{
	return scnprintf(name, size, KBUILD_MODNAME "-%s", dev_name(&vdev->dev));
}

unsigned int balloon_bmap_block_order(void)
{
	return block_order;
}

unsigned int balloon_bmap_pageblock_order(void)
{
	return pageblock_order;
}

unsigned long balloon_bmap_page_pfn(const struct page *page)
{
	return page_to_pfn(page);
}

/* Returns false when free pages have whatever was in them. */
bool balloon_bmap_free_page_value(u32 *value)
{
	*value = 0;
	if (want_init_on_free())
		return true;
	memset(value, PAGE_POISON, sizeof(*value));
	return page_poisoning_enabled_static();
}

unsigned long balloon_bmap_node_pages(unsigned int item)
{
	return global_node_page_state(item);
}

/* As for_each_zone(), which modules cannot use. */
#define for_each_online_zone(node, zone)						\
	for_each_online_node(node)							\
		for ((zone) = NODE_DATA(node)->node_zones;				\
		     (zone) < NODE_DATA(node)->node_zones + MAX_NR_ZONES; (zone)++)

/*
 * Free pages, as of now, that lie together in blocks of at least that order, of memory that the
 * kernel itself can have.
 */
unsigned long balloon_bmap_free_pages_in_blocks(unsigned int order)
{
	const struct zone *zone;
	unsigned long pages = 0;
	int node;

	for_each_online_zone(node, zone) {
		if (zone_idx(zone) >= ZONE_MOVABLE)
			continue;
		for (unsigned int i = order; i < NR_PAGE_ORDERS; i++)
			pages += data_race(zone->free_area[i].nr_free) << i;
	}
	return pages;
}

/*
 * Whether of the memory that the kernel itself can have less than a quarter would be free without
 * @pages more, while there is some that only programs can have.
 */
bool balloon_bmap_kernel_memory_is_short(unsigned long pages)
{
	unsigned long present = 0, free = 0;
	bool others = false;
	struct zone *zone;
	int node;

	for_each_online_zone(node, zone) {
		unsigned long zone_free = zone_page_state(zone, NR_FREE_PAGES);

		if (zone_idx(zone) < ZONE_MOVABLE) {
			present += zone->present_pages;
			free += zone_free;
		} else if (zone_free > high_wmark_pages(zone)) {
			others = true;
		}
	}
	return others && free < present / 4 + pages;
}

int balloon_bmap_page_zone_id(struct page *page)
{
	return page_zone_id(page);
}

/*
 * These two loops are most of what the driver does for a page of a block: a block has an order of
 * at least 1, and most have many pages.
 */
void balloon_bmap_set_offline(struct page *page, unsigned int order)
{
	struct page *end = page + (1UL << order);

	unrolled_count(8)
	for (; page < end; page++)
		__SetPageOffline(page);
}

void balloon_bmap_clear_offline(struct page *page, unsigned int order)
{
	struct page *end = page + (1UL << order);

	unrolled_count(8)
	for (; page < end; page++)
		__ClearPageOffline(page);
}

void balloon_bmap_count(struct page *page, long inflated, long deflated)
{
	mod_node_page_state(page_pgdat(page), NR_BALLOON_PAGES, inflated - deflated);
	count_vm_events(BALLOON_INFLATE, inflated);
	count_vm_events(BALLOON_DEFLATE, deflated);
}

/*
 * Only what is free already, without touching the last reserves, and without writing to it where
 * the kernel heeds __GFP_SKIP_ZERO.
 */
#define BLOCK_FLAGS (__GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC | __GFP_SKIP_ZERO)

struct page *balloon_bmap_alloc_block(unsigned int order)
{
	return alloc_pages(BLOCK_FLAGS, order);
}

/* Of memory as balloon_page_alloc() has it. */
#define MOVABLE_FLAGS \
	((IS_ENABLED(CONFIG_BALLOON_MIGRATION) ? GFP_HIGHUSER_MOVABLE : GFP_HIGHUSER) | BLOCK_FLAGS)

struct page *balloon_bmap_alloc_movable(unsigned int order)
{
	return alloc_pages(MOVABLE_FLAGS & ~__GFP_RECLAIM, order);
}

/* The same, but of memory that the kernel itself can have. */
struct page *balloon_bmap_alloc_kernel_movable(unsigned int order)
{
	return alloc_pages(BLOCK_FLAGS | __GFP_MOVABLE, order);
}

/*
 * Single pages, for which memory is reclaimed. Returns how many there are now, which go to elements
 * of @pages that are NULL.
 */
unsigned long balloon_bmap_alloc_pages(int want, struct page **pages)
{
	return alloc_pages_bulk(MOVABLE_FLAGS, want, pages);
}

void balloon_bmap_free_block(struct page *page, unsigned int order)
{
	__free_pages(page, order);
}

void *balloon_bmap_page_address(const struct page *page)
{
	return page_address(page);
}

int balloon_bmap_register_memory_notifier(struct notifier_block *block)
{
	return register_memory_notifier(block);
}

void balloon_bmap_unregister_memory_notifier(struct notifier_block *block)
{
	unregister_memory_notifier(block);
}

/* Returns whether memory is about to go offline, and which. */
bool balloon_bmap_goes_offline(unsigned long action, const void *data, unsigned long *start,
			       unsigned long *pages)
{
	const struct memory_notify *notify = data;

	if (action != MEM_GOING_OFFLINE)
		return false;
	*start = notify->start_pfn;
	*pages = notify->nr_pages;
	return true;
}

struct shrinker *balloon_bmap_shrinker_alloc(void)
{
	return shrinker_alloc(0, KBUILD_MODNAME);
}

struct workqueue_struct *balloon_bmap_alloc_workqueue(void)
{
	return alloc_workqueue(KBUILD_MODNAME, WQ_FREEZABLE | WQ_CPU_INTENSIVE | WQ_PERCPU, 0);
}

void balloon_bmap_trace_inflate(unsigned long wanted, unsigned long moved, u64 held)
{
	trace_balloon_bmap_inflate(wanted, moved, held);
}

void balloon_bmap_trace_deflate(unsigned long wanted, unsigned long moved, u64 held)
{
	trace_balloon_bmap_deflate(wanted, moved, held);
}

void balloon_bmap_trace_oom(unsigned long wanted, unsigned long moved, u64 held)
{
	trace_balloon_bmap_oom(wanted, moved, held);
}

void balloon_bmap_init_waitqueue(struct wait_queue_head *wq)
{
	init_waitqueue_head(wq);
}

void balloon_bmap_wake_up(struct wait_queue_head *wq)
{
	wake_up_all(wq);
}

/* Returns NULL when the time is over or the queue is broken. */
void *balloon_bmap_wait_buf(struct wait_queue_head *wq, struct virtqueue *vq,
			    unsigned long timeout)
{
	unsigned int len;
	void *buf = NULL;

	wait_event_timeout(*wq, (buf = virtqueue_get_buf(vq, &len)) || virtqueue_is_broken(vq),
			   timeout);
	return buf;
}
