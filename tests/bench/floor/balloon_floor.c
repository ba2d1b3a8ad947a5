// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page allocator alone: takes memory as the balloon does, and gives it back. The kernel's log tells how long
 * either took; the module does nothing else.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>

static unsigned long mib;
module_param(mib, ulong, 0);
MODULE_PARM_DESC(mib, "MiB to take");

static unsigned int order;
module_param(order, uint, 0);
MODULE_PARM_DESC(order, "log2 of the pages of a block");

/* As abstractions/helpers.c has them, for blocks and for single pages. */
static gfp_t balloon_gfp(void)
{
	gfp_t flags = __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC;

	return order ? flags : (GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM) | flags;
}

static int __init balloon_floor_init(void)
{
	unsigned long wanted, taken;
	u64 start, allocated, freed;
	struct page *page, *next;
	LIST_HEAD(blocks);

	if (!mib || order > MAX_PAGE_ORDER)
		return -EINVAL;

	wanted = mib << (20 - PAGE_SHIFT) >> order;
	start = ktime_get_ns();
	for (taken = 0; taken < wanted; taken++) {
		page = alloc_pages(balloon_gfp(), order);
		if (!page)
			break;
		list_add(&page->lru, &blocks);
		if (!(taken % 4096))
			cond_resched();
	}
	allocated = ktime_get_ns();
	list_for_each_entry_safe(page, next, &blocks, lru)
		__free_pages(page, order);
	freed = ktime_get_ns();

	pr_info("order %u pages %lu allocate_ns %llu free_ns %llu\n", order, taken << order, allocated - start,
		freed - allocated);
	return 0;
}
module_init(balloon_floor_init);

/* busybox loads a module that refuses once more, which would find all memory with the host. */
static void __exit balloon_floor_exit(void)
{
}
module_exit(balloon_floor_exit);

MODULE_DESCRIPTION("What the page allocator takes to inflate and deflate a balloon");
MODULE_LICENSE("GPL");
