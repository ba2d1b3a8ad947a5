// SPDX-License-Identifier: GPL-2.0

//! Work on the freezable system workqueue that can be stopped for good.
//!
//! It does not matter who calls what when: once [`stop`] has returned, the work neither runs nor
//! will, until [`allow`].
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use kernel::{
    bindings,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        self,
        HasDelayedWork,
        Work,
        WorkItem, //
    },
};

/// Starts the work of `item`, unless it is to run anyway or was stopped. Does not sleep.
pub(crate) fn start<T>(item: &Arc<T>)
where
    T: WorkItem<Pointer = Arc<T>> + HasDelayedWork<T> + Send + Sync + 'static,
{
    // An item that is not queued now comes back: there is nothing to do then.
    let _ = workqueue::system_freezable().enqueue(item.clone());
}

/// Starts the work of `item` after a time, unless it is to run anyway or was stopped.
pub(crate) fn start_later<T>(item: &Arc<T>, delay: Jiffies)
where
    T: WorkItem<Pointer = Arc<T>> + HasDelayedWork<T> + Send + Sync + 'static,
{
    let _ = workqueue::system_freezable().enqueue_delayed(item.clone(), delay);
}

/// Waits for the work of `item` to end, and lets it start no more. Must not be called by the work.
pub(crate) fn stop<T>(item: &Arc<T>)
where
    T: WorkItem<Pointer = Arc<T>> + HasDelayedWork<T>,
{
    // SAFETY: `item` is valid. Disabling the work, rather than cancelling it, also refuses what
    // would be queued from now on.
    let was_queued = unsafe { bindings::disable_delayed_work_sync(delayed_work(item)) };
    if was_queued {
        // SAFETY: Queueing leaked a reference for the work's function to take back, and the
        // function will not run.
        drop(unsafe { Arc::from_raw(Arc::as_ptr(item)) });
    }
}

/// Undoes a [`stop`].
pub(crate) fn allow<T>(item: &Arc<T>)
where
    T: WorkItem<Pointer = Arc<T>> + HasDelayedWork<T>,
{
    // SAFETY: `item` is valid.
    unsafe { bindings::enable_delayed_work(delayed_work(item)) };
}

fn delayed_work<T: HasDelayedWork<T>>(item: &Arc<T>) -> *mut bindings::delayed_work {
    // SAFETY: `item` points to a valid `T`, whose work is pinned with it.
    let work = unsafe { Work::raw_get(T::raw_get_work(Arc::as_ptr(item).cast_mut())) };
    // SAFETY: By the requirements of `HasDelayedWork`, this work is the one in a `delayed_work`.
    unsafe { kernel::container_of!(work, bindings::delayed_work, work) }
}
