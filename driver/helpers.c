// SPDX-License-Identifier: GPL-2.0

#include <linux/list.h>
#include <linux/mm.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>

#include "helpers.h"

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

struct list_head *balloon_bmap_page_lru(struct page *page)
{
	return &page->lru;
}

struct page *balloon_bmap_lru_page(struct list_head *lru)
{
	return list_entry(lru, struct page, lru);
}

unsigned long balloon_bmap_page_pfn(const struct page *page)
{
	return page_to_pfn(page);
}

void balloon_bmap_put_page(struct page *page)
{
	put_page(page);
}

/* Only what is free already, and without touching the last reserves. */
struct page *balloon_bmap_alloc_block(unsigned int order)
{
	return alloc_pages(__GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC, order);
}

void balloon_bmap_free_block(struct page *page, unsigned int order)
{
	__free_pages(page, order);
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
