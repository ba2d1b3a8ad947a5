// SPDX-License-Identifier: GPL-2.0

//! Virtqueues, and buffers that the device owns while it reads them.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::{
    bindings,
    blocks::Block,
    message::Message,
    virtio::{
        Adapter,
        Device,
        Driver, //
    },
};
use core::{
    ffi::c_void,
    marker::PhantomData,
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

/// What a device has used.
pub(crate) enum Used {
    /// A message, which it has read.
    Message(KBox<Message>),
    /// Pages, which it may have written to.
    Lent,
}

impl Used {
    /// The token of pages. That of a message is its address, which is aligned.
    const LENT: *mut c_void = core::ptr::without_provenance_mut(1);

    /// # Safety
    ///
    /// `token` must come from [`Virtqueue::add`], or be `LENT`, and be used once.
    unsafe fn from_token(token: NonNull<c_void>) -> Self {
        if token.as_ptr() == Self::LENT {
            Self::Lent
        } else {
            // SAFETY: By the safety requirements, this is the box that `add` was given.
            Self::Message(unsafe { KBox::from_raw(token.as_ptr().cast()) })
        }
    }

    /// The message.
    ///
    /// # Errors
    ///
    /// EIO if these are pages.
    pub(crate) fn message(self) -> Result<KBox<Message>> {
        match self {
            Self::Message(message) => Ok(message),
            Self::Lent => Err(EIO),
        }
    }
}

/// Pages that are the device's to write to as long as they are lent.
pub(crate) struct LentPages<'a> {
    list: *mut bindings::scatterlist,
    len: u32,
    pages: PhantomData<&'a mut bindings::page>,
}

impl LentPages<'_> {
    /// # Safety
    ///
    /// `list` must have `len` entries, whose pages nobody else uses as long as the value exists.
    pub(crate) unsafe fn new(list: *mut bindings::scatterlist, len: u32) -> Self {
        Self {
            list,
            len,
            pages: PhantomData,
        }
    }
}

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

    /// Takes back what the device has used, if there is anything.
    pub(crate) fn take(&mut self) -> Option<Used> {
        let mut len = 0;
        // SAFETY: `vq` is valid by the type invariant, and `&mut self` makes us its only user.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut len) };
        // SAFETY: The queue has given the token up.
        NonNull::new(token).map(|token| unsafe { Used::from_token(token) })
    }

    /// How many descriptors the device does not have.
    pub(crate) fn free(&self) -> u32 {
        // SAFETY: `vq` is valid by the type invariant.
        unsafe { (*self.vq.as_ptr()).num_free }
    }

    /// Waits until the device has used something, and takes it back.
    ///
    /// # Errors
    ///
    /// EIO if the queue is broken, ETIMEDOUT if the device does not answer and
    /// [`UsedBuffers::hurry`] was called. The queue is of no use then.
    pub(crate) fn wait(&mut self) -> Result<Used> {
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
            if let Some(token) = NonNull::new(token) {
                // SAFETY: The queue has given the token up.
                return Ok(unsafe { Used::from_token(token) });
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

    /// Lets the device do with pages what it wants, and waits until it has.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`] and [`Self::wait`]. The device is reset then, as it must not touch
    /// the pages any more.
    pub(crate) fn lend(&mut self, pages: LentPages<'_>) -> Result {
        // SAFETY: `vq` is valid by the type invariant, and `&mut self` makes us its only user. The
        // pages are lent until this returns.
        to_result(unsafe {
            bindings::virtqueue_add_inbuf(
                self.vq.as_ptr(),
                pages.list,
                pages.len,
                Used::LENT,
                bindings::GFP_NOWAIT,
            )
        })?;
        self.kick();
        let answered = self.wait();
        if answered.is_err() {
            self.set.reset();
        }
        answered.map(drop)
    }

    /// Tells the device of a block that is free, without waiting for it.
    ///
    /// The device may look at the block as long as it has not used it, and loses nothing when
    /// somebody else uses it meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`].
    pub(crate) fn hint(&mut self, block: &Block) -> Result {
        let mut sg = MaybeUninit::<bindings::scatterlist>::zeroed();
        let len = u32::try_from(block.order().bytes())?;
        // SAFETY: `sg` is valid for writes, and the block is memory of the linear map.
        unsafe { bindings::sg_init_one(sg.as_mut_ptr(), block.address(), len) };
        // SAFETY: `vq` is valid by the type invariant, and `&mut self` makes us its only user.
        to_result(unsafe {
            bindings::virtqueue_add_inbuf(
                self.vq.as_ptr(),
                sg.as_mut_ptr(),
                1,
                Used::LENT,
                bindings::GFP_KERNEL,
            )
        })
    }
}

impl Drop for Virtqueue {
    fn drop(&mut self) {
        self.set.reset();
        // SAFETY: `vq` is valid by the type invariant, and the device was reset.
        let detach = || unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };
        while let Some(token) = NonNull::new(detach()) {
            // SAFETY: The queue has given the token up.
            drop(unsafe { Used::from_token(token) });
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

/// Finds the queues of a device, in the order of their numbers. One without a name is left out, and
/// has no number.
///
/// `used` is where the users of the queues wait; [`Driver::buffers_used`] of `T` has to wake them.
/// The first queue that is dropped resets the device: all must be out of use by then.
///
/// # Errors
///
/// Those of the transport, ENOMEM among them.
pub(crate) fn find<T: Driver, const N: usize>(
    dev: &Device,
    names: [Option<&'static CStr>; N],
    used: &Arc<UsedBuffers>,
) -> Result<[Option<Virtqueue>; N]> {
    let set = UniqueArc::new_uninit(GFP_KERNEL)?;
    let mut infos = names.map(|name| bindings::virtqueue_info {
        name: name.map_or(core::ptr::null(), |name| name.as_char_ptr()),
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
    // INVARIANT: The queues that the transport has found are deleted when `set` is dropped.
    Ok(found.map(|vq| {
        Some(Virtqueue {
            vq: NonNull::new(vq)?,
            used: used.clone(),
            set: set.clone(),
        })
    }))
}
