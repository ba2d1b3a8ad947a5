// SPDX-License-Identifier: GPL-2.0-only

//! The driver of balloon devices.

use crate::{
    abstractions::{
        bindings, crash_dump,
        debugfs::ShowFile,
        memory_info,
        memory_notifier::MemoryChain,
        notifier::{
            Listen,
            Notifier, //
        },
        oom_notifier::OomChain,
        page_counts::Counted,
        page_reporting::PageReporting,
        param::{
            self,
            FloorChain, //
        },
        shrinker::Shrinker,
        transport::Transport,
        virtio::{
            self,
            DeviceId,
            Features, //
        },
        virtio_device::Device,
        virtqueue::QueueInfo,
        work::Task,
    },
    balloon::{
        account::Account,
        allocation::WINDOW,
        config,
        hinting::Hinting,
        hot_unplug::BlockEviction,
        oom::{
            self,
            OomDeflation, //
        },
        reporting::Reporting,
        size_worker::SizeWorker,
        statistics::Statistics,
        wakeup::{
            Event,
            WakeupEvents, //
        },
    },
    bitmap::MAX_BITMAPS,
    messages::{
        byte_order::ByteOrder,
        counters::Counters,
        sender::{
            Format,
            Sender, //
        },
    },
    new_task,
};
use kernel::{device::Core, prelude::*, sync::Arc};

type Feature = virtio::Feature<BalloonDriver>;

const MUST_TELL_HOST: Feature = Feature::declared(bindings::VIRTIO_BALLOON_F_MUST_TELL_HOST);
const STATS_VQ: Feature = Feature::declared(bindings::VIRTIO_BALLOON_F_STATS_VQ);
const DEFLATE_ON_OOM: Feature = Feature::declared(bindings::VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
const FREE_PAGE_HINT: Feature = Feature::declared(bindings::VIRTIO_BALLOON_F_FREE_PAGE_HINT);
const PAGE_POISON: Feature = Feature::declared(bindings::VIRTIO_BALLOON_F_PAGE_POISON);
const REPORTING: Feature = Feature::declared(bindings::VIRTIO_BALLOON_F_REPORTING);
const PAGE_BITMAP: Feature = Feature::declared(VIRTIO_BALLOON_F_PAGE_BITMAP);

/// Messages are page bitmaps. Not in any published specification of virtio: docs/PROTOCOL.md.
const VIRTIO_BALLOON_F_PAGE_BITMAP: u32 = 63;

/// The number of the statistics queue, where there is one.
const STATS_QUEUE: u32 = 2;

/// Hints of free pages.
struct Hints {
    task: Arc<Task<Hinting>>,
    _shrinker: Shrinker<Task<Hinting>>,
}

/// All that a device has while it is bound. Dropped in the order of the fields: first who calls the
/// others, then who works for them.
#[pin_data]
pub(crate) struct Balloon {
    #[pin]
    oom: Notifier<OomChain, OomDeflation>,
    #[pin]
    hot_unplug: Notifier<MemoryChain, BlockEviction>,
    #[pin]
    floor: Notifier<FloorChain, FloorChange>,
    _debugfs: ShowFile<Account>,
    #[pin]
    reporting: PageReporting<Reporting>,
    hints: Option<Hints>,
    statistics: Arc<Task<Statistics>>,
    size_worker: Arc<Task<SizeWorker>>,
    wakeup: Arc<WakeupEvents>,
    account: Arc<Account>,
}

/// The floor under the guest's memory is another.
struct FloorChange(Arc<Task<SizeWorker>>);

impl Listen<FloorChain> for FloorChange {
    fn notify(&self, (): ()) {
        self.0.start();
    }
}

/// Names of the device's queues, in the order of their numbers.
fn queue_infos(transport: &Transport) -> [Option<QueueInfo>; 5] {
    let with = |feature: Feature, info| feature.is_agreed_on(transport).then_some(info);
    [
        Some(QueueInfo::new(c"inflate")),
        Some(QueueInfo::new(c"deflate")),
        with(STATS_VQ, QueueInfo::new(c"stats")),
        with(FREE_PAGE_HINT, QueueInfo::silent(c"free_page_vq")),
        with(REPORTING, QueueInfo::new(c"reporting_vq")),
    ]
}

impl Balloon {
    /// Finds the device's queues and has their users use them.
    ///
    /// # Errors
    ///
    /// Those of the transport, and ENOMEM.
    fn connect(&self, dev: &Device<Core<'_>>) -> Result {
        let transport = &self.account.transport;
        let [inflate, deflate, stats, hinting, reporting] =
            virtio::find_vqs::<BalloonDriver, 5>(transport, dev, queue_infos(transport))?;
        let (inflate, deflate) = inflate.zip(deflate).ok_or(ENODEV)?;
        let order = ByteOrder::of_version_1(Feature::VERSION_1.is_agreed_on(transport));

        if PAGE_POISON.is_agreed_on(transport) {
            config::set_poison_val(transport, memory_info::free_page_value().unwrap_or(0))?;
        }
        if let Some((hints, queue)) = self.hints.as_ref().zip(hinting) {
            hints.task.inner().connect(queue, order)?;
        }
        if let Some(queue) = reporting {
            self.reporting.inner().connect(queue);
        }
        if let Some(queue) = stats {
            self.statistics.inner().connect(queue, order)?;
        }
        self.account.connect([inflate.of(), deflate.of()])
    }

    /// Starts to be called for what happens to the guest's memory.
    ///
    /// # Errors
    ///
    /// Those of the notifier chains.
    fn listen(&self) -> Result {
        if DEFLATE_ON_OOM.is_agreed_on(&self.account.transport) {
            self.oom.register()?;
        }
        self.hot_unplug.register()?;
        self.floor.register()
    }

    /// The device is live: starts to use it.
    fn start(&self) {
        if let Some(capacity) = self.reporting.inner().capacity() {
            if let Err(err) = self.reporting.start(capacity) {
                dev_err!(
                    self.account.transport.device(),
                    "free pages are not reported: {err:?}\n"
                );
            }
        }
        self.statistics.inner().kick();
        self.size_worker.start();
    }

    /// Stops all that uses the device, which may not answer any more.
    fn stop(&self) {
        // First of all: those who are waited for below may be waiting for the device.
        self.account.transport.bound_waits();
        if let Some(hints) = &self.hints {
            hints.task.inner().stop();
        }
        self.oom.unregister();
        self.hot_unplug.unregister();
        self.floor.unregister();
        self.reporting.stop();
        if let Some(hints) = &self.hints {
            hints.task.stop();
        }
        self.size_worker.stop();
        self.statistics.stop();
    }

    /// Undoes [`Self::stop`], but for what [`Self::listen`] starts.
    fn allow(&self) {
        self.size_worker.allow();
        self.statistics.allow();
        if let Some(hints) = &self.hints {
            hints.task.allow();
        }
    }

    /// Empties the balloon and lets go of the device, which nobody uses any more.
    fn disconnect(&self, dev: &Device<Core<'_>>) {
        self.account.drain_and_reset(dev, WINDOW);
        self.statistics.inner().disconnect();
        self.reporting.inner().disconnect();
        if let Some(hints) = &self.hints {
            hints.task.inner().disconnect();
        }
        self.wakeup.drop_all();
    }
}

/// The driver of balloon devices.
pub(crate) struct BalloonDriver;

crate::virtio_device_table!(
    ID_TABLE,
    [DeviceId::any_vendor(bindings::VIRTIO_ID_BALLOON)]
);

impl virtio::Driver for BalloonDriver {
    type Data = Balloon;

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
        dev: &Device<Core<'_>>,
        transport: &Transport,
        features: &mut Features<'_, Self>,
    ) -> Result<impl PinInit<Self::Data, Error>> {
        if crash_dump::is_capture_kernel() {
            // It has little memory, and what it was started for is in all the rest.
            dev_info!(transport.device(), "not used in a capture kernel\n");
            return Err(ENODEV);
        }
        if !dev.has_config() {
            dev_err!(
                transport.device(),
                "the device has no configuration space\n"
            );
            return Err(EINVAL);
        }
        // Messages are one descriptor each, and physical addresses.
        features.withdraw(Feature::RING_INDIRECT_DESC);
        features.withdraw(Feature::ACCESS_PLATFORM);

        if memory_info::free_page_value().is_none() {
            features.withdraw(PAGE_POISON);
        } else if !features.has(PAGE_POISON) {
            // The device could not give reported pages back with that value in them.
            features.withdraw(REPORTING);
        }
        let counted = if features.has(DEFLATE_ON_OOM) {
            Counted::Used
        } else {
            Counted::Gone
        };
        let counters = Arc::new(Counters::new(), GFP_KERNEL)?;
        let sender = sender(features, transport, &counters)?;
        let account = Account::new(transport.clone(), sender, counters.clone(), counted)?;
        let wakeup = Arc::pin_init(WakeupEvents::new(transport.clone()), GFP_KERNEL)?;
        let hints = if features.has(FREE_PAGE_HINT) {
            Some(Hints::new(transport)?)
        } else {
            None
        };
        let statistics = Statistics::new(transport.clone(), counters, wakeup.clone());
        let statistics = Arc::pin_init(
            new_task!(new, c"balloon_statistics", statistics),
            GFP_KERNEL,
        )?;
        let size_worker = SizeWorker::new(account.clone(), wakeup.clone());
        let size_worker = Arc::pin_init(
            new_task!(new, c"balloon_size_worker", size_worker),
            GFP_KERNEL,
        )?;
        let oom = OomDeflation {
            account: account.clone(),
            size_worker: size_worker.clone(),
        };
        let eviction = BlockEviction {
            account: account.clone(),
            size_worker: size_worker.clone(),
        };
        let reporting = Reporting::new(transport.clone());
        let debugfs = ShowFile::new(transport.device(), c"stats", account.clone());
        Ok(try_pin_init!(Balloon {
            oom <- Notifier::new(oom, oom::PRIORITY),
            hot_unplug <- Notifier::new(eviction, 0),
            floor <- Notifier::new(FloorChange(size_worker.clone()), 0),
            _debugfs: debugfs,
            reporting <- PageReporting::new(reporting),
            hints,
            statistics,
            size_worker,
            wakeup,
            account,
        }))
    }

    fn probe(dev: &Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        data.connect(dev)?;
        data.listen()?;
        let format = data.account.lock().sender().format();
        let dev = data.account.transport.device();
        match format {
            Format::PageBitmaps => dev_info!(
                dev,
                "page bitmaps, 1 of up to {MAX_BITMAPS} bitmaps of 32 KiB\n"
            ),
            Format::PfnArrays(_) => dev_info!(dev, "PFN array\n"),
        }
        Ok(())
    }

    fn scan(_dev: &Device<Core<'_>>, data: Pin<&Self::Data>) {
        data.start();
    }

    fn config_changed(data: Pin<&Self::Data>) {
        data.wakeup.raise(Event::Adjust);
        if let Some(hints) = &data.hints {
            hints.task.inner().config_changed();
            hints.task.start();
        }
        data.size_worker.start();
    }

    fn on_notify(data: Pin<&Self::Data>, queue: u32) {
        if queue == STATS_QUEUE && STATS_VQ.is_agreed_on(&data.account.transport) {
            data.wakeup.raise(Event::Stats);
            data.statistics.start();
        }
    }

    fn remove(dev: &Device<Core<'_>>, data: Pin<&Self::Data>) {
        data.stop();
        data.disconnect(dev);
    }

    fn shutdown(_dev: &Device<Core<'_>>, data: Pin<&Self::Data>) {
        data.stop();
    }

    fn freeze(dev: &Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        data.stop();
        data.disconnect(dev);
        Ok(())
    }

    fn restore(dev: &Device<Core<'_>>, data: Pin<&Self::Data>) -> Result {
        data.connect(dev)?;
        data.listen()?;
        dev.ready();
        data.account.publish();
        data.allow();
        data.start();
        Ok(())
    }
}

impl Hints {
    fn new(transport: &Transport) -> Result<Self> {
        let hinting = Hinting::new(transport.clone());
        let task = Arc::pin_init(
            new_task!(new_intensive, c"balloon_hinting", hinting)?,
            GFP_KERNEL,
        )?;
        Ok(Self {
            _shrinker: Shrinker::register(task.clone())?,
            task,
        })
    }
}

/// Makes the sender, and withdraws page bitmaps where they are not used.
#[inline(never)]
fn sender(
    features: &mut Features<'_, BalloonDriver>,
    transport: &Transport,
    counters: &Arc<Counters>,
) -> Result<Sender> {
    let modern = features.has(Feature::VERSION_1);
    let must_tell_host = features.has(MUST_TELL_HOST);
    let with = |format| {
        Sender::new(
            format,
            must_tell_host,
            transport.clone(),
            counters.clone(),
            GFP_KERNEL | __GFP_NOWARN,
        )
    };

    if features.has(PAGE_BITMAP) {
        if modern && param::page_bitmap() {
            match with(Format::PageBitmaps) {
                Ok(sender) => return Ok(sender),
                Err(_) => pr_warn!("no memory for page bitmaps\n"),
            }
        }
        features.withdraw(PAGE_BITMAP);
    }
    with(Format::PfnArrays(ByteOrder::of_version_1(modern)))
}
