// SPDX-License-Identifier: GPL-2.0-only

#include <linux/crash_dump.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/list.h>
#include <linux/list_sort.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/notifier.h>
#include <linux/poison.h>
#include <linux/seq_file.h>
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
static BLOCKING_NOTIFIER_HEAD(floor_chain);

static int set_floor_mib(const char *value, const struct kernel_param *param)
{
	int err = param_set_uint(value, param);

	return err ?: notifier_to_errno(blocking_notifier_call_chain(&floor_chain, 0, NULL));
}

static const struct kernel_param_ops floor_mib_ops = {
	.set = set_floor_mib,
	.get = param_get_uint,
};

module_param_cb(floor_mib, &floor_mib_ops, &floor_mib, 0600);
__MODULE_PARM_TYPE(floor_mib, "uint");
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

int balloon_bmap_register_floor_notifier(struct notifier_block *block)
{
	return blocking_notifier_chain_register(&floor_chain, block);
}

void balloon_bmap_unregister_floor_notifier(struct notifier_block *block)
{
	blocking_notifier_chain_unregister(&floor_chain, block);
}

bool balloon_bmap_is_kdump_kernel(void)
{
	return is_kdump_kernel();
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
	return __virtio_test_bit(vdev, bit);
}

void balloon_bmap_clear_feature(struct virtio_device *vdev, unsigned int bit)
{
	__virtio_clear_bit(vdev, bit);
}

void balloon_bmap_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
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

unsigned long balloon_bmap_highest_pfn(void)
{
	const struct zone *zone;
	unsigned long highest = 0;
	int node;

	for_each_online_zone(node, zone)
		highest = max(highest, zone_end_pfn(zone));
	return highest;
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

void balloon_bmap_get_page(struct page *page)
{
	get_page(page);
}

void balloon_bmap_put_page(struct page *page)
{
	put_page(page);
}

void balloon_bmap_list_del(struct list_head *entry)
{
	list_del(entry);
}

/* Moves the first @want entries of @from, which has more, to @to, which has none. */
void balloon_bmap_list_cut(struct list_head *to, struct list_head *from, unsigned long want)
{
	struct list_head *entry = from;

	while (want--)
		entry = entry->next;
	list_cut_position(to, from, entry);
}

void balloon_bmap_list_splice_init(struct list_head *from, struct list_head *to)
{
	list_splice_init(from, to);
}

static int compare_pfns(void *priv, const struct list_head *a, const struct list_head *b)
{
	unsigned long left = page_to_pfn(list_entry(a, struct page, lru));
	unsigned long right = page_to_pfn(list_entry(b, struct page, lru));

	return left > right;
}

void balloon_bmap_list_sort(struct list_head *pages)
{
	list_sort(NULL, pages, compare_pfns);
}

void balloon_bmap_free_list(struct list_head *pages)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, pages, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
}

/* This loop and the next are most of what the driver does for a page of a block. */
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

/* Says of the first page of a block whose it is, and of the second its order. */
void balloon_bmap_tag_block(struct page *page, unsigned int order, unsigned long tag)
{
	set_page_private(page, tag);
	set_page_private(page + 1, order);
}

void balloon_bmap_untag_block(struct page *page)
{
	set_page_private(page, 0);
	set_page_private(page + 1, 0);
}

/* The block with that tag that starts at @pfn, if there is one. */
struct page *balloon_bmap_tagged_block(unsigned long pfn, unsigned long tag, unsigned int *order)
{
	struct page *page = pfn_to_online_page(pfn);

	if (!page || !PageOffline(page) || page_private(page) != tag)
		return NULL;
	*order = page_private(page + 1);
	return page;
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

struct page *balloon_bmap_alloc_unmovable(unsigned int order)
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

/* Returns whether memory outside of ZONE_MOVABLE is about to go offline, and which. */
bool balloon_bmap_goes_offline(unsigned long action, const void *data, unsigned long *start,
			       unsigned long *pages)
{
	const struct memory_notify *notify = data;

	if (action != MEM_GOING_OFFLINE)
		return false;
	if (zone_idx(page_zone(pfn_to_page(notify->start_pfn))) == ZONE_MOVABLE)
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

void balloon_bmap_wait_change(struct wait_queue_head *wq, const u32 *count, u32 seen,
			      unsigned long timeout)
{
	wait_event_timeout(*wq, READ_ONCE(*count) != seen, timeout);
}

/*
 * A file that @show makes up when it is read. The file holds on to the module as long as it is open;
 * single_open() calls with the inode's data as seq_file's private.
 */
static int open_show(struct inode *inode, struct file *file)
{
	int (*show)(struct seq_file *file, void *data) = debugfs_get_aux(file);

	return single_open(file, show, inode->i_private);
}

static const struct file_operations show_fops = {
	.owner = THIS_MODULE,
	.open = open_show,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

/* In a directory that is named after the module and the device. */
struct dentry *balloon_bmap_debugfs_create(const struct device *dev, const char *file,
					   int (*show)(struct seq_file *file, void *data),
					   void *data)
{
	char *name = kasprintf(GFP_KERNEL, KBUILD_MODNAME "-%s", dev_name(dev));
	struct dentry *dir;

	if (!name)
		return NULL;
	dir = debugfs_create_dir(name, NULL);
	kfree(name);
	debugfs_create_file_aux(file, 0400, dir, data, show, &show_fops);
	return dir;
}

void balloon_bmap_debugfs_remove(struct dentry *dir)
{
	debugfs_remove(dir);
}
