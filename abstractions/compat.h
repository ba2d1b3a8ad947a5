/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The C half of compat.rs.
 */
#ifndef _VIRTIO_BALLOON_BMAP_COMPAT_H
#define _VIRTIO_BALLOON_BMAP_COMPAT_H

#include <linux/spinlock_types.h>

unsigned long balloon_bmap_spin_lock_irqsave(spinlock_t *lock);
bool balloon_bmap_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void balloon_bmap_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);

#endif
