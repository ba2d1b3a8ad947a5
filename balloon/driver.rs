// SPDX-License-Identifier: GPL-2.0

//! A balloon device and its driver.

use crate::{
    back_off::BackOff,
    balloon_pages::BalloonPages,
    bindings,
    bitmap::MAX_BITMAPS,
    counters::Counters,
    debugfs::DebugFs,
    hinting::Hinting,
    hot_unplug::MemoryHotplug,
    memory_info,
    message::ByteOrder,
    notifier::Notifier,
    oom::OutOfMemory,
    param,
    reporter::{
        Format,
        Reporter,
        SharedReporter, //
    },
    reporting::PageReporting,
    shortage::Shortage,
    shrinker::Shrinker,
    size_worker::InFlight,
    stats::StatsQueue,
    virtio::{
        self,
        DeviceId,
        Driver,
        Features, //
    },
    virtqueue::{
        self,
        UsedBuffers, //
    },
    wakeup::{
        Event,
        WakeupEvents, //
    },
    work, //
};
use core::mem::offset_of;
use kernel::{
    device::Core,
    fmt, new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};

/// Messages are page bitmaps. Not in any published specification of virtio: docs/PROTOCOL.md.
const VIRTIO_BALLOON_F_PAGE_BITMAP: u32 = 63;

/// The work item that takes the balloon to its target.
pub(crate) const SIZE_WORK: u64 = 0;

/// The work item that answers the device's requests for statistics.
pub(crate) const STATS_WORK: u64 = 1;

/// The number of the statistics queue, where there is one.
const STATS_QUEUE: u32 = 2;

/// A balloon.
///
/// Locks: that of the window in flight comes before the reporter's. Under both the device is waited
/// for. The kernel's lock of all balloons, which is taken inside [`BalloonPages`], comes last. Pages
/// are allocated under none of them. The lock of the statistics is taken alone.
#[pin_data]
pub(crate) struct Balloon {
    pub(crate) dev: ARef<virtio::Device>,
    pub(crate) reporter: Arc<SharedReporter>,
    #[pin]
    pub(crate) pages: BalloonPages,
    /// What the host holds, in units of 4 KiB.
    pub(crate) held: Atomic<u64>,
    pub(crate) back_off: BackOff,
    pub(crate) counters: Arc<Counters>,
    pub(crate) shortage: Shortage,
    /// Of the size worker, and of those who have stopped it.
    #[pin]
    pub(crate) in_flight: Mutex<Option<InFlight>>,
    used: Arc<UsedBuffers>,
    #[pin]
    pub(crate) wakeup: WakeupEvents,
    #[pin]
    stats: Mutex<Option<StatsQueue>>,
    hinting: Option<Arc<Hinting>>,
    #[pin]
    reporting: PageReporting,
    #[pin]
    size_work: DelayedWork<Self, SIZE_WORK>,
    #[pin]
    stats_work: DelayedWork<Self, STATS_WORK>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 0> for Balloon { self.size_work }
    impl HasDelayedWork<Self, 1> for Balloon { self.stats_work }
}

impl WorkItem<STATS_WORK> for Balloon {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.wakeup.begin(Event::Stats);
        let mut stats = this.stats.lock();
        match (*stats).as_mut().map(StatsQueue::answer) {
            Some(Ok(true)) => this.counters.stats.inc(),
            Some(Ok(false)) | None => {}
            Some(Err(err)) => {
                let dev: &kernel::device::Device = this.dev.as_ref();
                dev_err!(dev, "no more statistics: {err:?}\n");
            }
        }
        this.wakeup.end();
    }
}

impl Balloon {
    fn new(
        dev: &virtio::Device,
        reporter: Reporter,
        counters: Arc<Counters>,
        shrinks_memory: bool,
        hinting: Option<Arc<Hinting>>,
    ) -> Result<Arc<Self>> {
        let reporter = Arc::pin_init(new_mutex!(reporter), GFP_KERNEL)?;
        let used = Arc::pin_init(UsedBuffers::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                pages <- BalloonPages::new(reporter.clone(), shrinks_memory),
                reporter,
                held: Atomic::new(0),
                back_off: BackOff::new(),
                counters,
                shortage: Shortage::new(),
                in_flight <- new_mutex!(None),
                used,
                wakeup <- WakeupEvents::new(dev),
                stats <- new_mutex!(None),
                hinting,
                reporting <- PageReporting::new(),
                size_work <- new_delayed_work!("Balloon::size_work"),
                stats_work <- new_delayed_work!("Balloon::stats_work"),
            }),
            GFP_KERNEL,
        )
    }

    /// The size that the host wants, in units of 4 KiB.
    pub(crate) fn target(&self) -> u32 {
        self.dev
            .config_read(offset_of!(bindings::virtio_balloon_config, num_pages))
    }

    /// Tells the host the size that the balloon has.
    pub(crate) fn write_actual(&self) {
        // A target has 32 bits, and the balloon does not grow beyond it.
        let actual = u32::try_from(self.held.load(Relaxed)).unwrap_or(u32::MAX);
        self.dev
            .config_write(offset_of!(bindings::virtio_balloon_config, actual), actual);
    }

    /// Writes a line for each number that debugfs shows.
    pub(crate) fn write_stats(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target {}", self.target())?;
        writeln!(f, "actual {}", self.held.load(Relaxed))?;
        writeln!(f, "floor {}", param::floor_pages())?;
        self.counters.write(f)
    }

    fn has_stats(&self) -> bool {
        self.dev.has_feature(bindings::VIRTIO_BALLOON_F_STATS_VQ)
    }

    /// Finds the device's queues and starts to use them.
    fn connect(&self) -> Result {
        self.used.hurry(false);

        let reports = self.dev.has_feature(bindings::VIRTIO_BALLOON_F_REPORTING);
        let names = [
            Some(c"inflate"),
            Some(c"deflate"),
            self.has_stats().then_some(c"stats"),
            self.hinting.as_ref().map(|_| c"free_page_vq"),
            reports.then_some(c"reporting_vq"),
        ];
        let [inflate, deflate, stats, hinting, reporting] =
            virtqueue::find::<BalloonDriver, 5>(&self.dev, names, &self.used)?;

        if self.dev.has_feature(bindings::VIRTIO_BALLOON_F_PAGE_POISON) {
            let value = memory_info::free_page_value().unwrap_or(0);
            self.dev.config_write(
                offset_of!(bindings::virtio_balloon_config, poison_val),
                value,
            );
        }
        if let Some((hinting, queue)) = self.hinting.as_ref().zip(hinting) {
            let modern = self.dev.has_feature(bindings::VIRTIO_F_VERSION_1);
            hinting.connect(queue, ByteOrder::of_version_1(modern))?;
        }
        self.reporting.connect(reporting);
        let stats = stats.map(StatsQueue::start).transpose()?;
        *self.stats.lock() = stats;
        let (inflate, deflate) = inflate.zip(deflate).ok_or(ENODEV)?;
        self.reporter.lock().connect(inflate, deflate)
    }

    /// The device is live.
    fn start(this: &Arc<Self>) {
        if let Err(err) = this.reporting.start() {
            let dev: &kernel::device::Device = this.dev.as_ref();
            dev_err!(dev, "free pages are not reported: {err:?}\n");
        }
        if let Some(stats) = &mut *this.stats.lock() {
            stats.kick();
        }
        work::start::<Self, SIZE_WORK>(this);
    }

    /// Stops all that uses the device, which may not answer any more.
    fn quiesce(this: &Arc<Self>) {
        this.used.hurry(true);
        this.reporting.stop();
        if let Some(hinting) = &this.hinting {
            Hinting::stop(hinting);
        }
        work::stop::<Self, SIZE_WORK>(this);
        work::stop::<Self, STATS_WORK>(this);
    }

    /// Empties the balloon and lets go of the device. Nothing may use it any more.
    fn disconnect(&self) {
        self.give_up();
        *self.stats.lock() = None;
        self.reporting.connect(None);
        if let Some(hinting) = &self.hinting {
            hinting.disconnect();
        }
        self.wakeup.drop_all();
    }
}

/// All that a device has while it is bound. Dropped in the order of the fields.
#[pin_data]
pub(crate) struct Bound {
    #[pin]
    oom: Notifier<OutOfMemory>,
    #[pin]
    hotplug: Notifier<MemoryHotplug>,
    shrinker: Option<Shrinker<Hinting>>,
    #[pin]
    debugfs: DebugFs,
    balloon: Arc<Balloon>,
}

/// The driver of balloon devices.
pub(crate) struct BalloonDriver;

crate::virtio_device_table!(
    ID_TABLE,
    [DeviceId::any_vendor(bindings::VIRTIO_ID_BALLOON)]
);

impl Driver for BalloonDriver {
    type Data = Bound;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;

    const FEATURES: &'static [u32] = &[
        bindings::VIRTIO_BALLOON_F_MUST_TELL_HOST,
        bindings::VIRTIO_BALLOON_F_STATS_VQ,
        bindings::VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
        bindings::VIRTIO_BALLOON_F_FREE_PAGE_HINT,
        bindings::VIRTIO_BALLOON_F_PAGE_POISON,
        bindings::VIRTIO_BALLOON_F_REPORTING,
        VIRTIO_BALLOON_F_PAGE_BITMAP,
    ];

    fn validate(
        dev: &virtio::Device<Core<'_>>,
        features: &mut Features<'_>,
    ) -> Result<impl PinInit<Self::Data, Error>> {
        let generic: &kernel::device::Device = (**dev).as_ref();
        if !dev.has_config() {
            dev_err!(generic, "the device has no configuration space\n");
            return Err(EINVAL);
        }
        // Messages are one descriptor each, and physical addresses.
        features.withdraw(bindings::VIRTIO_RING_F_INDIRECT_DESC);
        features.withdraw(bindings::VIRTIO_F_ACCESS_PLATFORM);

        if memory_info::free_page_value().is_none() {
            features.withdraw(bindings::VIRTIO_BALLOON_F_PAGE_POISON);
        } else if !features.has(bindings::VIRTIO_BALLOON_F_PAGE_POISON) {
            // The device could not give reported pages back with that value in them.
            features.withdraw(bindings::VIRTIO_BALLOON_F_REPORTING);
        }
        // Pages that come back when memory runs out are used, not gone.
        let shrinks_memory = !features.has(bindings::VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
        let hinting = if features.has(bindings::VIRTIO_BALLOON_F_FREE_PAGE_HINT) {
            Some(Hinting::new(dev)?)
        } else {
            None
        };
        let shrinker = hinting.clone().map(Shrinker::register).transpose()?;
        let counters = Arc::new(Counters::new(), GFP_KERNEL)?;
        let reporter = reporter(features, counters.clone())?;
        let balloon = Balloon::new(dev, reporter, counters, shrinks_memory, hinting)?;
        let debugfs = DebugFs::new(balloon.clone())?;
        Ok(try_pin_init!(Bound {
            oom <- Notifier::new(balloon.clone()),
            hotplug <- Notifier::new(balloon.clone()),
            shrinker,
            debugfs <- debugfs,
            balloon,
        }))
    }

    fn probe(dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        data.balloon.connect()?;
        if dev.has_feature(bindings::VIRTIO_BALLOON_F_DEFLATE_ON_OOM) {
            data.oom.register()?;
        }
        data.hotplug.register()?;
        let generic: &kernel::device::Device = (**dev).as_ref();
        match data.balloon.reporter.lock().format() {
            Format::PageBitmaps => dev_info!(
                generic,
                "page bitmaps, 1 of up to {MAX_BITMAPS} bitmaps of 32 KiB\n"
            ),
            Format::PfnArrays(_) => dev_info!(generic, "PFN array\n"),
        }
        Ok(())
    }

    fn scan(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) {
        Balloon::start(&data.balloon);
    }

    fn config_changed(data: Pin<&Self::Data>) {
        data.balloon.wakeup.raise(Event::Adjust);
        if let Some(hinting) = &data.balloon.hinting {
            Hinting::config_changed(hinting);
        }
        work::start::<Balloon, SIZE_WORK>(&data.balloon);
    }

    fn buffers_used(data: Pin<&Self::Data>, queue: u32) {
        if data.balloon.has_stats() && queue == STATS_QUEUE {
            data.balloon.wakeup.raise(Event::Stats);
            work::start::<Balloon, STATS_WORK>(&data.balloon);
        } else {
            data.balloon.used.wake();
        }
    }

    fn remove(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) {
        data.oom.unregister();
        data.hotplug.unregister();
        Balloon::quiesce(&data.balloon);
        data.balloon.disconnect();
    }

    fn shutdown(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) {
        data.oom.unregister();
        data.hotplug.unregister();
        Balloon::quiesce(&data.balloon);
    }

    fn freeze(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        Balloon::quiesce(&data.balloon);
        data.balloon.disconnect();
        Ok(())
    }

    fn restore(_dev: &virtio::Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        let balloon = &data.balloon;
        balloon.connect()?;
        balloon.dev.ready();
        balloon.write_actual();
        work::allow::<Balloon, SIZE_WORK>(balloon);
        work::allow::<Balloon, STATS_WORK>(balloon);
        if let Some(hinting) = &balloon.hinting {
            Hinting::allow(hinting);
        }
        Balloon::start(balloon);
        Ok(())
    }
}

/// Makes the reporter, and withdraws page bitmaps where they are not used.
fn reporter(features: &mut Features<'_>, counters: Arc<Counters>) -> Result<Reporter> {
    let modern = features.has(bindings::VIRTIO_F_VERSION_1);
    let must_tell_host = features.has(bindings::VIRTIO_BALLOON_F_MUST_TELL_HOST);
    let with = |format, flags| Reporter::new(format, must_tell_host, counters.clone(), flags);

    if features.has(VIRTIO_BALLOON_F_PAGE_BITMAP) {
        if modern && param::page_bitmap() {
            match with(Format::PageBitmaps, GFP_KERNEL | __GFP_NOWARN) {
                Ok(reporter) => return Ok(reporter),
                Err(_) => pr_warn!("no memory for page bitmaps\n"),
            }
        }
        features.withdraw(VIRTIO_BALLOON_F_PAGE_BITMAP);
    }
    with(
        Format::PfnArrays(ByteOrder::of_version_1(modern)),
        GFP_KERNEL | __GFP_NOWARN,
    )
}
