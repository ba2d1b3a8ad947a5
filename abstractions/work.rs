// SPDX-License-Identifier: GPL-2.0

//! Work on freezable workqueues that can be stopped for good.
//!
//! `ID` says which of the work items of `T` is meant. It does not matter who calls what when: once
//! [`stop`] has returned, the work neither runs nor will, until [`allow`].
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        self,
        HasDelayedWork,
        Work,
        WorkItem, //
    },
};

/// Starts the work of `item` on the system's workqueue, unless it is to run anyway or was stopped.
/// Does not sleep.
pub(crate) fn start<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID> + Send + Sync + 'static,
{
    // An item that is not queued now comes back: there is nothing to do then.
    let _ = workqueue::system_freezable().enqueue::<_, ID>(item.clone());
}

/// Starts the work of `item` on a queue of its own, unless it is to run anyway or was stopped. Does
/// not sleep.
pub(crate) fn start_on<T>(queue: &workqueue::Queue, item: &Arc<T>)
where
    T: WorkItem<Pointer = Arc<T>> + HasDelayedWork<T> + Send + Sync + 'static,
{
    let _ = queue.enqueue(item.clone());
}

/// Starts the work of `item` on the system's workqueue after a time, unless it is to run anyway or was stopped.
pub(crate) fn start_later<T, const ID: u64>(item: &Arc<T>, delay: Jiffies)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID> + Send + Sync + 'static,
{
    let _ = workqueue::system_freezable().enqueue_delayed::<_, ID>(item.clone(), delay);
}

/// Waits for the work of `item` to end, and lets it start no more. Must not be called by the work.
pub(crate) fn stop<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    // SAFETY: `item` is valid. Disabling the work, rather than cancelling it, also refuses what
    // would be queued from now on.
    let was_queued = unsafe { bindings::disable_delayed_work_sync(delayed_work::<T, ID>(item)) };
    if was_queued {
        // SAFETY: Queueing leaked a reference for the work's function to take back, and the
        // function will not run.
        drop(unsafe { Arc::from_raw(Arc::as_ptr(item)) });
    }
}

/// Undoes a [`stop`].
pub(crate) fn allow<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    // SAFETY: `item` is valid.
    unsafe { bindings::enable_delayed_work(delayed_work::<T, ID>(item)) };
}

/// A freezable workqueue for work that takes the processor for long.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used from any thread.
unsafe impl Send for OwnedQueue {}

// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Makes a workqueue.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May be called from any context that may sleep.
        let queue = unsafe { crate::bindings::balloon_bmap_alloc_workqueue() };
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// The queue.
    pub(crate) fn queue(&self) -> &workqueue::Queue {
        // SAFETY: The queue exists as long as `self` does.
        unsafe { workqueue::Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: The queue is ours, and its owner has stopped all work on it.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

fn delayed_work<T: HasDelayedWork<T, ID>, const ID: u64>(
    item: &Arc<T>,
) -> *mut bindings::delayed_work {
    // SAFETY: `item` points to a valid `T`, whose work is pinned with it.
    let work = unsafe { Work::raw_get(T::raw_get_work(Arc::as_ptr(item).cast_mut())) };
    // SAFETY: By the requirements of `HasDelayedWork`, this work is the one in a `delayed_work`.
    unsafe { kernel::container_of!(work, bindings::delayed_work, work) }
}
