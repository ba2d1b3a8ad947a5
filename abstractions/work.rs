// SPDX-License-Identifier: GPL-2.0-only

//! Tasks on freezable workqueues that can be started at once whatever they wait for, and stopped for
//! good.
//!
//! `kernel::workqueue` has no way to stop work. To stop it from outside would mean to know whether a
//! reference waits in the queue to be taken back, which `mod_delayed_work()` does not say. Here the
//! work lives in its task, which stops it before it goes, and no reference is in the queue.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::abstractions::bindings;
use core::ptr::NonNull;
use kernel::{
    ffi::c_int,
    new_mutex,
    prelude::*,
    sync::{
        LockClassKey,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::Opaque, //
};

/// Any processor.
// CAST: A small constant, which fits.
const CPU_UNBOUND: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

/// What a task does each time that it is started.
pub(crate) trait Run: Send + Sync {
    /// Runs, never twice at the same time, and says when to run next.
    fn run(&self) -> Next;
}

/// When a task is to run next, unless it is started before.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// When it is started.
    Idle,
    /// At once. Other work of the queue gets its turn.
    Again,
    /// After a time.
    After(Msecs),
}

/// Where a task runs.
enum Queue {
    /// The system's workqueue for work that stops while the system suspends.
    System,
    /// One of its own.
    Own(NonNull<bindings::workqueue_struct>),
}

impl Queue {
    fn as_raw(&self) -> *mut bindings::workqueue_struct {
        match self {
            // SAFETY: The kernel sets this before it loads any module.
            Self::System => unsafe { bindings::system_freezable_wq },
            Self::Own(queue) => queue.as_ptr(),
        }
    }
}

/// Work that runs a task.
///
/// # Invariants
///
/// `work` is initialised, with `Self::callback` as its function, and only queued on `queue`.
#[pin_data(PinnedDrop)]
pub(crate) struct Task<T: Run> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    queue: Queue,
    /// The kernel counts how often work was disabled; this makes it once.
    #[pin]
    stopped: Mutex<bool>,
    #[pin]
    task: T,
}

// SAFETY: Work may be queued and stopped from any thread, and workqueues have their locks.
unsafe impl<T: Run> Send for Task<T> {}

// SAFETY: As above.
unsafe impl<T: Run> Sync for Task<T> {}

impl<T: Run> Task<T> {
    /// A task on the system's workqueue.
    pub(crate) fn new(
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
        timer_key: Pin<&'static LockClassKey>,
        task: impl PinInit<T>,
    ) -> impl PinInit<Self> {
        Self::on(Queue::System, name, key, timer_key, task)
    }

    /// A task that takes the processor for long, on a workqueue of its own.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new_intensive(
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
        timer_key: Pin<&'static LockClassKey>,
        task: impl PinInit<T>,
    ) -> Result<impl PinInit<Self>> {
        // SAFETY: May be called from any context that may sleep.
        let queue = unsafe { bindings::balloon_bmap_alloc_workqueue() };
        let queue = Queue::Own(NonNull::new(queue).ok_or(ENOMEM)?);
        Ok(Self::on(queue, name, key, timer_key, task))
    }

    fn on(
        queue: Queue,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
        timer_key: Pin<&'static LockClassKey>,
        task: impl PinInit<T>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(move |slot: *mut bindings::delayed_work| {
                // INVARIANT: The work has this function, and it is not queued.
                // SAFETY: `slot` is valid for writes, and stays pinned. The timer is that of delayed
                // work, and has its function.
                unsafe {
                    bindings::init_work_with_key(
                        &raw mut (*slot).work,
                        Some(Self::callback),
                        false,
                        name.as_char_ptr(),
                        key.as_ptr(),
                    );
                    bindings::timer_init_key(
                        &raw mut (*slot).timer,
                        Some(bindings::delayed_work_timer_fn),
                        bindings::TIMER_IRQSAFE,
                        name.as_char_ptr(),
                        timer_key.as_ptr(),
                    );
                }
            }),
            queue,
            stopped <- new_mutex!(false),
            task <- task,
        })
    }

    /// What is run.
    pub(crate) fn inner(&self) -> &T {
        &self.task
    }

    /// Runs the task as soon as may be: at once, or again after the run that is under way. May be
    /// called in interrupt context.
    pub(crate) fn start(&self) {
        self.start_after(0);
    }

    fn start_after(&self, ms: Msecs) {
        // SAFETY: Work and queue are valid by the type invariant.
        unsafe {
            bindings::mod_delayed_work_on(
                CPU_UNBOUND,
                self.queue.as_raw(),
                self.work.get(),
                msecs_to_jiffies(ms),
            )
        };
    }

    /// Waits for the run that is under way, after which there is none until [`Self::allow`], whoever
    /// starts the task. Must not be called by the task.
    pub(crate) fn stop(&self) {
        let mut stopped = self.stopped.lock();
        if !core::mem::replace(&mut *stopped, true) {
            // SAFETY: The work is valid. It is disabled, not cancelled, so that it refuses what would
            // be queued from now on.
            unsafe { bindings::disable_delayed_work_sync(self.work.get()) };
        }
    }

    /// Undoes [`Self::stop`].
    pub(crate) fn allow(&self) {
        let mut stopped = self.stopped.lock();
        if core::mem::replace(&mut *stopped, false) {
            // SAFETY: The work is valid, and was disabled once.
            unsafe { bindings::enable_delayed_work(self.work.get()) };
        }
    }

    extern "C" fn callback(work: *mut bindings::work_struct) {
        // SAFETY: By the type invariant, this is the work in the `delayed_work` of a task, which stops
        // it before it goes.
        let this = unsafe {
            let work = kernel::container_of!(work, bindings::delayed_work, work);
            &*kernel::container_of!(Opaque::cast_from(work), Self, work)
        };
        let delay = match this.task.run() {
            Next::Idle => return,
            Next::Again => 0,
            Next::After(ms) => msecs_to_jiffies(ms),
        };
        // Not `start_after`: whoever has started the task meanwhile wants it sooner.
        // SAFETY: As there.
        unsafe {
            bindings::queue_delayed_work_on(
                CPU_UNBOUND,
                this.queue.as_raw(),
                this.work.get(),
                delay,
            )
        };
    }
}

#[pinned_drop]
impl<T: Run> PinnedDrop for Task<T> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
        if let Queue::Own(queue) = self.queue {
            // SAFETY: The queue is ours, and there is no work on it.
            unsafe { bindings::destroy_workqueue(queue.as_ptr()) };
        }
    }
}

/// Makes a [`Task`] with lock classes of its own.
#[macro_export]
macro_rules! new_task {
    ($constructor:ident, $name:literal, $task:expr) => {
        $crate::abstractions::work::Task::$constructor(
            $name,
            kernel::static_lock_class!(),
            kernel::static_lock_class!(),
            $task,
        )
    };
}
