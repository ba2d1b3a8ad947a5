/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_balloon_bmap

#if !defined(_VIRTIO_BALLOON_BMAP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VIRTIO_BALLOON_BMAP_TRACE_H

#include <linux/tracepoint.h>

/* A window of pages: how many were wanted and moved, and what the host holds, in 4 KiB, after it. */
DECLARE_EVENT_CLASS(balloon_bmap_window,
	TP_PROTO(unsigned long wanted, unsigned long moved, u64 held),
	TP_ARGS(wanted, moved, held),
	TP_STRUCT__entry(
		__field(unsigned long, wanted)
		__field(unsigned long, moved)
		__field(u64, held)
	),
	TP_fast_assign(
		__entry->wanted = wanted;
		__entry->moved = moved;
		__entry->held = held;
	),
	TP_printk("wanted=%lu moved=%lu held=%llu",
		  __entry->wanted, __entry->moved, __entry->held)
);

DEFINE_EVENT(balloon_bmap_window, balloon_bmap_inflate,
	TP_PROTO(unsigned long wanted, unsigned long moved, u64 held),
	TP_ARGS(wanted, moved, held)
);

DEFINE_EVENT(balloon_bmap_window, balloon_bmap_deflate,
	TP_PROTO(unsigned long wanted, unsigned long moved, u64 held),
	TP_ARGS(wanted, moved, held)
);

DEFINE_EVENT(balloon_bmap_window, balloon_bmap_oom,
	TP_PROTO(unsigned long wanted, unsigned long moved, u64 held),
	TP_ARGS(wanted, moved, held)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
