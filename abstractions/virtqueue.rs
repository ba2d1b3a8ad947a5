// SPDX-License-Identifier: GPL-2.0-only

//! Virtqueues, which own their buffers as long as the device has them.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use crate::abstractions::{
    bindings,
    buffer::Buffer,
    page_block::PageBlock,
    virtio_device::Device, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    device,
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    types::ForeignOwnable, //
};

/// Something that a device reads.
///
/// # Safety
///
/// [`Self::bytes`] must lie in the linear map, and stay where it is and as it is while the value is
/// owned elsewhere (`into_foreign`).
pub(crate) unsafe trait OutBuffer: ForeignOwnable + Send + 'static {
    /// What the device is to read.
    fn bytes(&self) -> &[u8];
}

// SAFETY: The bytes of a buffer lie in the linear map, and not in the box.
unsafe impl OutBuffer for KBox<Buffer> {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }
}

/// What a device has used.
pub(crate) enum Used<B> {
    /// A buffer of the driver's, which the device has read.
    Buffer(B),
    /// Memory that was lent or advertised.
    Memory,
}

/// The token of memory that no [`OutBuffer`] stands for.
static MEMORY: u8 = 0;

fn memory_token() -> *mut c_void {
    (&raw const MEMORY).cast_mut().cast()
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
    pub(super) unsafe fn new(list: *mut bindings::scatterlist, len: u32) -> Self {
        Self {
            list,
            len,
            pages: PhantomData,
        }
    }
}

/// What is to be found: a queue's name, and whether its use is announced.
#[derive(Clone, Copy)]
pub(crate) struct QueueInfo {
    name: &'static CStr,
    notifies: bool,
}

impl QueueInfo {
    /// A queue that notifies of what the device has used.
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            notifies: true,
        }
    }

    /// A queue that does not: who uses it looks at it.
    pub(crate) const fn silent(name: &'static CStr) -> Self {
        Self {
            name,
            notifies: false,
        }
    }
}

/// What is called when the device has used buffers, in interrupt context.
pub(super) type Callback = extern "C" fn(*mut bindings::virtqueue);

/// How to drop a buffer by its token.
type DropBuffer = unsafe fn(*mut c_void);

/// Drops a buffer of that type.
///
/// # Safety
///
/// The token must be that of a buffer of the type, which a queue has given up.
unsafe fn drop_buffer<B: OutBuffer>(token: *mut c_void) {
    // SAFETY: By the safety requirements.
    drop(unsafe { B::from_foreign(token) });
}

/// A virtqueue of the transport.
///
/// # Invariants
///
/// `vq` is valid. All tokens in it are `memory_token()`, or of the type that `drop_buffer` drops.
struct Inner {
    vq: NonNull<bindings::virtqueue>,
    drop_buffer: Option<DropBuffer>,
}

// SAFETY: A virtqueue may be used from any thread, by one at a time.
unsafe impl Send for Inner {}

impl Inner {
    /// Drops all buffers.
    ///
    /// # Safety
    ///
    /// The device must have been reset.
    unsafe fn detach_all(&mut self) {
        // SAFETY: `vq` is valid by the type invariant, and the device was reset.
        let detach = || unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };
        while let Some(token) = NonNull::new(detach()) {
            if token.as_ptr() == memory_token() {
                continue;
            }
            if let Some(drop_buffer) = self.drop_buffer {
                // SAFETY: By the type invariant, this is a token of that type, and the queue has
                // given it up.
                unsafe { drop_buffer(token.as_ptr()) };
            }
        }
    }
}

/// A queue until it is deleted. The lock is held while the queue is used.
type Cell = Arc<Mutex<Option<Inner>>>;

/// The queues of a device, which come and go together.
pub(super) struct QueueSet(KVec<Cell>);

impl QueueSet {
    pub(super) const fn new() -> Self {
        Self(KVec::new())
    }

    pub(super) fn find<const N: usize>(
        &mut self,
        dev: &Device<device::Core<'_>>,
        infos: [Option<QueueInfo>; N],
        callback: Callback,
    ) -> Result<[Option<RawQueue>; N]> {
        if !self.0.is_empty() {
            return Err(EBUSY);
        }
        let mut cells = [const { None }; N];
        for (cell, _) in cells
            .iter_mut()
            .zip(infos)
            .filter(|(_, info)| info.is_some())
        {
            let empty: Cell = Arc::pin_init(new_mutex!(None), GFP_KERNEL)?;
            *cell = Some(empty);
        }
        self.0.reserve(N, GFP_KERNEL)?;

        let mut raw_infos = infos.map(|info| bindings::virtqueue_info {
            name: info.map_or(core::ptr::null(), |info| info.name.as_char_ptr()),
            callback: info.filter(|info| info.notifies).map(|_| {
                let callback: unsafe extern "C" fn(*mut bindings::virtqueue) = callback;
                callback
            }),
            ctx: false,
        });
        let mut found = [core::ptr::null_mut(); N];
        let raw = dev.as_raw();
        // SAFETY: The device is valid, and the arrays hold `N` entries each. The transport copies what
        // it needs of `raw_infos`; the names are static.
        to_result(unsafe {
            match (*(*raw).config).find_vqs {
                Some(find_vqs) => find_vqs(
                    raw,
                    u32::try_from(N)?,
                    found.as_mut_ptr(),
                    raw_infos.as_mut_ptr(),
                    core::ptr::null_mut(),
                ),
                None => return Err(ENODEV),
            }
        })?;

        let mut queues = [const { None }; N];
        for ((queue, cell), vq) in queues.iter_mut().zip(cells).zip(found) {
            let (Some(cell), Some(vq)) = (cell, NonNull::new(vq)) else {
                continue;
            };
            // INVARIANT: The transport has made the queue, and it is deleted after it was taken out of
            // its cell. It has no buffers yet.
            *cell.lock() = Some(Inner {
                vq,
                drop_buffer: None,
            });
            // There is room for it: what was reserved.
            self.0.push_within_capacity(cell.clone()).map_err(|_| EIO)?;
            *queue = Some(RawQueue { cell });
        }
        Ok(queues)
    }

    /// Deletes the queues of a device that was reset.
    pub(super) fn delete(&mut self, dev: &Device<device::Core<'_>>) {
        if self.0.is_empty() {
            return;
        }
        for cell in self.0.drain_all() {
            if let Some(mut inner) = cell.lock().take() {
                // SAFETY: The device was reset, as the caller says.
                unsafe { inner.detach_all() };
            }
        }
        let raw = dev.as_raw();
        // SAFETY: The device is valid, and nobody has its queues any more.
        unsafe {
            if let Some(del_vqs) = (*(*raw).config).del_vqs {
                del_vqs(raw);
            }
        }
    }
}

/// A queue that was found, before it is known what goes over it.
pub(crate) struct RawQueue {
    cell: Cell,
}

impl RawQueue {
    /// The queue, for buffers of a type.
    pub(crate) fn of<B: OutBuffer>(self) -> Virtqueue<B> {
        if let Some(inner) = &mut *self.cell.lock() {
            // INVARIANT: No buffer was added yet, as that takes the value made here.
            inner.drop_buffer = Some(drop_buffer::<B>);
        }
        Virtqueue {
            cell: self.cell,
            buffers: PhantomData,
        }
    }
}

/// A queue of buffers to a device.
///
/// The device owns a buffer from [`Self::add`] until [`Self::get`] returns it. What it has when the
/// queue is deleted is dropped. After that all calls fail with ENODEV.
pub(crate) struct Virtqueue<B: OutBuffer> {
    cell: Cell,
    buffers: PhantomData<B>,
}

impl<B: OutBuffer> Virtqueue<B> {
    fn with<R>(&self, f: impl FnOnce(*mut bindings::virtqueue) -> Result<R>) -> Result<R> {
        match &*self.cell.lock() {
            Some(inner) => f(inner.vq.as_ptr()),
            None => Err(ENODEV),
        }
    }

    /// How many buffers the device can have at once.
    pub(crate) fn size(&self) -> usize {
        // SAFETY: The queue is valid by the invariant of `Inner`.
        let size = self.with(|vq| Ok(unsafe { bindings::virtqueue_get_vring_size(vq) }));
        size.map_or(0, |size| usize::try_from(size).unwrap_or(0))
    }

    /// How many buffers more the device can have now.
    pub(crate) fn free(&self) -> usize {
        // SAFETY: As above.
        let free = self.with(|vq| Ok(unsafe { (*vq).num_free }));
        free.map_or(0, |free| usize::try_from(free).unwrap_or(0))
    }

    /// Gives the device a buffer, which it reads after the next [`Self::kick`].
    ///
    /// # Errors
    ///
    /// ENOSPC if the queue is full, EIO if it is broken, ENODEV if it was deleted. The buffer is
    /// dropped then.
    pub(crate) fn add(&mut self, buffer: B) -> Result {
        let mut sg = MaybeUninit::<bindings::scatterlist>::zeroed();
        let (start, len) = (
            buffer.bytes().as_ptr(),
            u32::try_from(buffer.bytes().len())?,
        );
        let token = buffer.into_foreign();
        // SAFETY: `sg` is valid for writes, and by the requirements of `OutBuffer` the bytes are memory
        // of the linear map, which stays where it is.
        unsafe { bindings::sg_init_one(sg.as_mut_ptr(), start.cast(), len) };
        let added = self.with(|vq| {
            // SAFETY: The queue is valid by the invariant of `Inner`, and ours while its cell is locked.
            to_result(unsafe {
                bindings::virtqueue_add_outbuf(
                    vq,
                    sg.as_mut_ptr(),
                    1,
                    token.cast(),
                    bindings::GFP_NOWAIT,
                )
            })
        });
        if added.is_err() {
            // SAFETY: The queue has not taken the token, which is from above.
            drop(unsafe { B::from_foreign(token) });
        }
        added
    }

    /// Notifies the device of what was added.
    pub(crate) fn kick(&mut self) {
        let _ = self.with(|vq| {
            // SAFETY: The queue is valid by the invariant of `Inner`, and ours while its cell is locked.
            unsafe { bindings::virtqueue_kick(vq) };
            Ok(())
        });
    }

    /// Takes back what the device has used, if there is anything.
    ///
    /// # Errors
    ///
    /// EIO if there is not, and the queue is broken; ENODEV if it was deleted.
    pub(crate) fn get(&mut self) -> Result<Option<Used<B>>> {
        let token = self.with(|vq| {
            let mut len = 0;
            // SAFETY: The queue is valid by the invariant of `Inner`, and ours while its cell is locked.
            unsafe {
                let token = bindings::virtqueue_get_buf(vq, &mut len);
                if token.is_null() && bindings::virtqueue_is_broken(vq) {
                    return Err(EIO);
                }
                Ok(token)
            }
        })?;
        if token.is_null() {
            return Ok(None);
        }
        if token == memory_token().cast() {
            return Ok(Some(Used::Memory));
        }
        // SAFETY: The queue has given the token up, and `B` is the type of all its buffers.
        Ok(Some(Used::Buffer(unsafe { B::from_foreign(token.cast()) })))
    }

    /// Lends the device pages. Whoever has lent them must wait until it has used them, or reset it.
    pub(super) fn add_lent(&mut self, pages: &LentPages<'_>) -> Result {
        self.with(|vq| {
            // SAFETY: The queue is valid by the invariant of `Inner`, and ours while its cell is locked.
            // The pages are lent until the caller has seen to it that the device does not use them.
            to_result(unsafe {
                bindings::virtqueue_add_inbuf(
                    vq,
                    pages.list,
                    pages.len,
                    memory_token().cast(),
                    bindings::GFP_NOWAIT,
                )
            })
        })
    }

    /// Tells the device of a block without lending it: for a device that only notes where it lies.
    ///
    /// Who owns the block may free it at any time, also before the device has used the entry.
    ///
    /// # Errors
    ///
    /// Those of [`Self::add`].
    pub(crate) fn advertise(&mut self, block: &PageBlock) -> Result {
        let mut sg = MaybeUninit::<bindings::scatterlist>::zeroed();
        let len = u32::try_from(block.order().bytes())?;
        // SAFETY: `sg` is valid for writes, and the block is memory of the linear map.
        unsafe { bindings::sg_init_one(sg.as_mut_ptr(), block.address(), len) };
        self.with(|vq| {
            // SAFETY: The queue is valid by the invariant of `Inner`, and ours while its cell is locked.
            to_result(unsafe {
                bindings::virtqueue_add_inbuf(
                    vq,
                    sg.as_mut_ptr(),
                    1,
                    memory_token().cast(),
                    bindings::GFP_NOWAIT,
                )
            })
        })
    }
}
