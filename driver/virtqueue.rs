// SPDX-License-Identifier: GPL-2.0

//! Virtqueues, and buffers that the device owns while it reads them.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::{
    bindings,
    message::Message,
    virtio::{
        Adapter,
        Device,
        Driver, //
    },
};
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        UniqueArc, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::Opaque, //
};

/// How long one look at a silent device lasts: a queue that is broken meanwhile wakes nobody.
const WAIT_SLICE_MS: Msecs = 1000;

/// How many such looks a device gets once nobody wants to wait for it any more.
const HURRIED_SLICES: u32 = 10;

/// Where the users of a device's queues wait for their buffers.
#[pin_data]
pub(crate) struct UsedBuffers {
    #[pin]
    wait_queue: Opaque<bindings::wait_queue_head>,
    hurried: Atomic<bool>,
}

impl UsedBuffers {
    /// Nobody waits yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            wait_queue <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, and stays pinned.
                unsafe { bindings::balloon_bmap_init_waitqueue(slot) }
            }),
            hurried: Atomic::new(false),
        })
    }

    /// The device may have used buffers. May be called in interrupt context.
    pub(crate) fn wake(&self) {
        // SAFETY: The wait queue was initialised.
        unsafe { bindings::balloon_bmap_wake_up(self.wait_queue.get()) }
    }

    /// From now on, a device that does not answer is given up after a while.
    pub(crate) fn hurry(&self, hurried: bool) {
        self.hurried.store(hurried, Relaxed);
        self.wake();
    }
}

// SAFETY: A wait queue may be used from any thread.
unsafe impl Send for UsedBuffers {}

// SAFETY: A wait queue has its own lock.
unsafe impl Sync for UsedBuffers {}

/// A queue of messages to a device.
///
/// # Invariants
///
/// `vq` is valid as long as `set` is.
pub(crate) struct Virtqueue {
    vq: NonNull<bindings::virtqueue>,
    used: Arc<UsedBuffers>,
    set: Arc<QueueSet>,
}

// SAFETY: A virtqueue may be used from any thread, by one at a time.
unsafe impl Send for Virtqueue {}

impl Virtqueue {
    /// How many messages the device can hold at once.
    pub(crate) fn capacity(&self) -> usize {
        // SAFETY: `vq` is valid by the type invariant.
        let size = unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) };
        // CAST: `u32` fits in `usize` on all architectures of Linux.
        size as usize
    }

    /// Hands a message to the device, which reads it after the next [`Self::kick`].
    ///
    /// # Errors
    ///
    /// ENOSPC if the queue is full, EIO if it is broken; the message comes back.
    pub(crate) fn add(&mut self, message: KBox<Message>) -> Result<(), (Error, KBox<Message>)> {
        let mut sg = MaybeUninit::<bindings::scatterlist>::zeroed();
        let bytes = message.bytes();
        let (start, len) = (bytes.as_ptr(), bytes.len());
        let Ok(len) = u32::try_from(len) else {
            return Err((EINVAL, message));
        };
        // The bytes stay where they are when the box moves.
        let token = KBox::into_raw(message);

        // SAFETY: `sg` is valid for writes, and `start` is memory of the linear map.
        unsafe { bindings::sg_init_one(sg.as_mut_ptr(), start.cast(), len) };
        // SAFETY: `vq` is valid by the type invariant, and `&mut self` makes us its only user. The
        // bytes stay valid until `token` is taken back, which happens once the device has used
        // them or the queue is deleted.
        let added = to_result(unsafe {
            bindings::virtqueue_add_outbuf(
                self.vq.as_ptr(),
                sg.as_mut_ptr(),
                1,
                token.cast(),
                bindings::GFP_KERNEL,
            )
        });
        // SAFETY: The queue has not taken the token, which is the box from above.
        added.map_err(|err| (err, unsafe { KBox::from_raw(token) }))
    }

    /// Notifies the device of the messages that were added.
    pub(crate) fn kick(&mut self) {
        // SAFETY: `vq` is valid by the type invariant, and `&mut self` makes us its only user.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) };
    }

    /// Waits until the device has used a message that was added, and takes it back.
    ///
    /// # Errors
    ///
    /// EIO if the queue is broken, ETIMEDOUT if the device does not answer and
    /// [`UsedBuffers::hurry`] was called. The queue is of no use then.
    pub(crate) fn wait(&mut self) -> Result<KBox<Message>> {
        let mut hurried: u32 = 0;
        loop {
            // SAFETY: Both are valid by the type invariant, and `&mut self` makes us the only user
            // of the queue.
            let token = unsafe {
                bindings::balloon_bmap_wait_buf(
                    self.used.wait_queue.get(),
                    self.vq.as_ptr(),
                    msecs_to_jiffies(WAIT_SLICE_MS),
                )
            };
            if !token.is_null() {
                // SAFETY: The only tokens that the queue has are those of `add`.
                return Ok(unsafe { KBox::from_raw(token.cast()) });
            }
            // SAFETY: `vq` is valid by the type invariant.
            if unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) } {
                return Err(EIO);
            }
            if self.used.hurried.load(Relaxed) {
                hurried = hurried.saturating_add(1);
                if hurried == HURRIED_SLICES {
                    return Err(ETIMEDOUT);
                }
            }
        }
    }

    /// Sends one message and waits until the device has used it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`] and [`Self::wait`].
    pub(crate) fn send(&mut self, message: KBox<Message>) -> Result<KBox<Message>> {
        self.add(message).map_err(|(err, _)| err)?;
        self.kick();
        self.wait()
    }
}

impl Drop for Virtqueue {
    fn drop(&mut self) {
        self.set.reset();
        // SAFETY: `vq` is valid by the type invariant, and the device was reset.
        let detach = || unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };
        let mut token = detach();
        while !token.is_null() {
            // SAFETY: The only tokens that the queue has are those of `add`.
            drop(unsafe { KBox::<Message>::from_raw(token.cast()) });
            token = detach();
        }
    }
}

/// The queues of a device as one: they come and go together.
struct QueueSet {
    dev: ARef<Device>,
    reset: Atomic<bool>,
}

impl QueueSet {
    /// Resets the device, unless that was done. It reads no buffer of any queue after this.
    fn reset(&self) {
        if !self.reset.xchg(true, Full) {
            // SAFETY: The device is valid.
            unsafe { bindings::virtio_reset_device(self.dev.as_raw()) };
        }
    }
}

impl Drop for QueueSet {
    fn drop(&mut self) {
        let raw = self.dev.as_raw();
        // SAFETY: The device is valid, and was reset when the first of its queues was dropped. The
        // last one was dropped now.
        unsafe {
            if let Some(del_vqs) = (*(*raw).config).del_vqs {
                del_vqs(raw);
            }
        }
    }
}

/// Finds the queues of a device, in the order of their numbers.
///
/// `used` is where the users of the queues wait; [`Driver::buffers_used`] of `T` has to wake them.
/// The first queue that is dropped resets the device: all must be out of use by then.
///
/// # Errors
///
/// Those of the transport, ENOMEM among them.
pub(crate) fn find<T: Driver, const N: usize>(
    dev: &Device,
    names: [&'static CStr; N],
    used: &Arc<UsedBuffers>,
) -> Result<[Virtqueue; N]> {
    let set = UniqueArc::new_uninit(GFP_KERNEL)?;
    let mut infos = names.map(|name| bindings::virtqueue_info {
        name: name.as_char_ptr(),
        callback: Some(Adapter::<T>::buffers_used_callback),
        ctx: false,
    });
    let mut found = [core::ptr::null_mut(); N];
    let raw = dev.as_raw();

    // SAFETY: The device is valid, and the arrays hold `N` entries each. The transport copies what
    // it needs of `infos`; the names are static.
    let status = unsafe {
        match (*(*raw).config).find_vqs {
            Some(find_vqs) => find_vqs(
                raw,
                u32::try_from(N)?,
                found.as_mut_ptr(),
                infos.as_mut_ptr(),
                core::ptr::null_mut(),
            ),
            None => return Err(ENODEV),
        }
    };
    to_result(status)?;

    let set: Arc<QueueSet> = Arc::from(set.write(QueueSet {
        dev: dev.into(),
        reset: Atomic::new(false),
    }));
    // INVARIANT: The transport has set all pointers, and deletes the queues when `set` is dropped.
    Ok(found.map(|vq| Virtqueue {
        // SAFETY: The transport does not report success with a queue missing.
        vq: unsafe { NonNull::new_unchecked(vq) },
        used: used.clone(),
        set: set.clone(),
    }))
}
