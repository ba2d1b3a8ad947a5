/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that Rust cannot call.
 */
#ifndef _VIRTIO_BALLOON_BMAP_HELPERS_H
#define _VIRTIO_BALLOON_BMAP_HELPERS_H

#include <linux/types.h>

struct device;
struct list_head;
struct notifier_block;
struct page;
struct shrinker;
struct virtio_device;
struct virtqueue;
struct wait_queue_head;
struct workqueue_struct;
struct zone;

void balloon_bmap_can_wake_up(struct device *dev);
void balloon_bmap_stay_awake(struct device *dev);
void balloon_bmap_relax(struct device *dev);

bool balloon_bmap_has_feature(const struct virtio_device *vdev, unsigned int bit);
void balloon_bmap_clear_feature(struct virtio_device *vdev, unsigned int bit);
void balloon_bmap_device_ready(struct virtio_device *vdev);
void balloon_bmap_out_of_puff(struct virtio_device *vdev, unsigned long pages);
size_t balloon_bmap_full_name(const struct virtio_device *vdev, char *name, size_t size);

bool balloon_bmap_free_page_value(u32 *value);
unsigned long balloon_bmap_node_pages(unsigned int item);
unsigned long balloon_bmap_free_pages_in_blocks(unsigned int order);
bool balloon_bmap_kernel_memory_is_short(unsigned long pages);
bool balloon_bmap_page_bitmap(void);
unsigned int balloon_bmap_oom_pages(void);
unsigned long balloon_bmap_floor_pages(void);
unsigned int balloon_bmap_block_order(void);
unsigned int balloon_bmap_pageblock_order(void);

unsigned long balloon_bmap_page_pfn(const struct page *page);
int balloon_bmap_page_zone_id(struct page *page);
void balloon_bmap_set_offline(struct page *page, unsigned int order);
void balloon_bmap_clear_offline(struct page *page, unsigned int order);
void balloon_bmap_count(struct page *page, long inflated, long deflated);
struct page *balloon_bmap_alloc_movable(unsigned int order);
struct page *balloon_bmap_alloc_kernel_movable(unsigned int order);
struct page *balloon_bmap_alloc_block(unsigned int order);
unsigned long balloon_bmap_alloc_pages(int want, struct page **pages);
void balloon_bmap_free_block(struct page *page, unsigned int order);
void *balloon_bmap_page_address(const struct page *page);

int balloon_bmap_register_memory_notifier(struct notifier_block *block);
void balloon_bmap_unregister_memory_notifier(struct notifier_block *block);
bool balloon_bmap_goes_offline(unsigned long action, const void *data, unsigned long *start,
			       unsigned long *pages);

struct shrinker *balloon_bmap_shrinker_alloc(void);
struct workqueue_struct *balloon_bmap_alloc_workqueue(void);

void balloon_bmap_trace_inflate(unsigned long wanted, unsigned long moved, u64 held);
void balloon_bmap_trace_deflate(unsigned long wanted, unsigned long moved, u64 held);
void balloon_bmap_trace_oom(unsigned long wanted, unsigned long moved, u64 held);

void balloon_bmap_init_waitqueue(struct wait_queue_head *wq);
void balloon_bmap_wake_up(struct wait_queue_head *wq);
void *balloon_bmap_wait_buf(struct wait_queue_head *wq, struct virtqueue *vq,
			    unsigned long timeout);

#endif
