/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that Rust cannot call.
 */
#ifndef _VIRTIO_BALLOON_BMAP_HELPERS_H
#define _VIRTIO_BALLOON_BMAP_HELPERS_H

#include <linux/types.h>

struct list_head;
struct page;
struct virtio_device;
struct virtqueue;
struct wait_queue_head;

bool balloon_bmap_has_feature(const struct virtio_device *vdev, unsigned int bit);
void balloon_bmap_clear_feature(struct virtio_device *vdev, unsigned int bit);
void balloon_bmap_device_ready(struct virtio_device *vdev);
void balloon_bmap_out_of_puff(struct virtio_device *vdev, unsigned long pages);

struct list_head *balloon_bmap_page_lru(struct page *page);
struct page *balloon_bmap_lru_page(struct list_head *lru);
unsigned long balloon_bmap_page_pfn(const struct page *page);
void balloon_bmap_put_page(struct page *page);
struct page *balloon_bmap_alloc_block(unsigned int order);
void balloon_bmap_free_block(struct page *page, unsigned int order);

void balloon_bmap_init_waitqueue(struct wait_queue_head *wq);
void balloon_bmap_wake_up(struct wait_queue_head *wq);
void *balloon_bmap_wait_buf(struct wait_queue_head *wq, struct virtqueue *vq,
			    unsigned long timeout);

#endif
