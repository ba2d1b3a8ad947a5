/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Inline functions and macros of the kernel that Rust cannot call, and loops that are faster in C.
 */
#ifndef _VIRTIO_BALLOON_BMAP_HELPERS_H
#define _VIRTIO_BALLOON_BMAP_HELPERS_H

#include <linux/types.h>

struct dentry;
struct device;
struct list_head;
struct notifier_block;
struct page;
struct seq_file;
struct shrinker;
struct virtio_device;
struct wait_queue_head;
struct workqueue_struct;

/* Parameters. */
bool balloon_bmap_page_bitmap(void);
unsigned int balloon_bmap_block_order(void);
unsigned int balloon_bmap_oom_pages(void);
unsigned long balloon_bmap_floor_pages(void);
int balloon_bmap_register_floor_notifier(struct notifier_block *block);
void balloon_bmap_unregister_floor_notifier(struct notifier_block *block);

/* Devices. */
bool balloon_bmap_is_kdump_kernel(void);
void balloon_bmap_can_wake_up(struct device *dev);
void balloon_bmap_stay_awake(struct device *dev);
void balloon_bmap_relax(struct device *dev);
bool balloon_bmap_has_feature(const struct virtio_device *vdev, unsigned int bit);
void balloon_bmap_clear_feature(struct virtio_device *vdev, unsigned int bit);
void balloon_bmap_device_ready(struct virtio_device *vdev);

/* Counts of memory. */
bool balloon_bmap_free_page_value(u32 *value);
unsigned long balloon_bmap_node_pages(unsigned int item);
unsigned long balloon_bmap_free_pages_in_blocks(unsigned int order);
unsigned long balloon_bmap_highest_pfn(void);
bool balloon_bmap_kernel_memory_is_short(unsigned long pages);
void balloon_bmap_count(struct page *page, long inflated, long deflated);

/* Pages and lists of them. */
unsigned int balloon_bmap_pageblock_order(void);
struct page *balloon_bmap_alloc_unmovable(unsigned int order);
struct page *balloon_bmap_alloc_movable(unsigned int order);
struct page *balloon_bmap_alloc_kernel_movable(unsigned int order);
unsigned long balloon_bmap_alloc_pages(int want, struct page **pages);
void balloon_bmap_free_block(struct page *page, unsigned int order);
void balloon_bmap_free_list(struct list_head *pages);
unsigned long balloon_bmap_page_pfn(const struct page *page);
int balloon_bmap_page_zone_id(struct page *page);
void *balloon_bmap_page_address(const struct page *page);
void balloon_bmap_get_page(struct page *page);
void balloon_bmap_put_page(struct page *page);
void balloon_bmap_set_offline(struct page *page, unsigned int order);
void balloon_bmap_clear_offline(struct page *page, unsigned int order);
void balloon_bmap_tag_block(struct page *page, unsigned int order, unsigned long tag);
void balloon_bmap_untag_block(struct page *page);
struct page *balloon_bmap_tagged_block(unsigned long pfn, unsigned long tag, unsigned int *order);
void balloon_bmap_list_del(struct list_head *entry);
void balloon_bmap_list_cut(struct list_head *to, struct list_head *from, unsigned long want);
void balloon_bmap_list_splice_init(struct list_head *from, struct list_head *to);
void balloon_bmap_list_sort(struct list_head *pages);

/* Notifiers, shrinkers, workqueues, wait queues. */
int balloon_bmap_register_memory_notifier(struct notifier_block *block);
void balloon_bmap_unregister_memory_notifier(struct notifier_block *block);
bool balloon_bmap_goes_offline(unsigned long action, const void *data, unsigned long *start,
			       unsigned long *pages);
struct shrinker *balloon_bmap_shrinker_alloc(void);
struct workqueue_struct *balloon_bmap_alloc_workqueue(void);
void balloon_bmap_init_waitqueue(struct wait_queue_head *wq);
void balloon_bmap_wake_up(struct wait_queue_head *wq);
void balloon_bmap_wait_change(struct wait_queue_head *wq, const u32 *count, u32 seen,
			      unsigned long timeout);

/* Observation. */
void balloon_bmap_trace_inflate(unsigned long wanted, unsigned long moved, u64 held);
void balloon_bmap_trace_deflate(unsigned long wanted, unsigned long moved, u64 held);
void balloon_bmap_trace_oom(unsigned long wanted, unsigned long moved, u64 held);
struct dentry *balloon_bmap_debugfs_create(const struct device *dev, const char *file,
					   int (*show)(struct seq_file *file, void *data),
					   void *data);
void balloon_bmap_debugfs_remove(struct dentry *dir);

#endif
