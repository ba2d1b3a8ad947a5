// SPDX-License-Identifier: GPL-2.0-only

//! Debian guests with systemd in which the driver was installed as README.md says: what drives the
//! balloon after a boot, with no help from here. `make check-install` makes the disks, and the trials
//! use them up; without disks they are left out.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::audit::logs;
use guest_tests::balloon::{Device, Features};
use guest_tests::disk::Disk;
use guest_tests::environment;
use guest_tests::qemu::Machine;
use guest_tests::vm::{Driver, Setup, Vm, Wire};
use libtest_mimic::{Arguments, Failed, Trial};

const OURS: Driver = Driver::Ours("");
/// Where there is something to fetch or to build: hours under emulation.
const LONG: Duration = Duration::from_secs(4 * 3600);
/// Where there is not.
const SHORT: Duration = Duration::from_secs(900);
/// A clone of the project, in the guest.
const CLONE: &str = "/root/virtio_balloon_bmap";

fn main() {
    let arguments = Arguments::from_args();
    let disks = environment::disks();
    let trial = |name: &'static str, story: fn(&Story) -> Result<()>| {
        let image = disks
            .as_ref()
            .map(|disks| disks.join(format!("{name}.img")))
            .filter(|image| image.exists());
        let left_out = image.is_none();
        Trial::test(name, move || tell(name, story, image)).with_ignored_flag(left_out)
    };
    let trials = vec![
        trial("installed", installed),
        trial("upgraded", upgraded),
        trial("dracut", dracut),
        trial("in_the_guest", in_the_guest),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn tell(name: &str, story: fn(&Story) -> Result<()>, image: Option<PathBuf>) -> Result<(), Failed> {
    let told = || -> Result<()> {
        let directory = environment::artefacts(&format!("install::{name}"))?;
        let image = image.context("there is no disk; `make check-install` makes it")?;
        story(&Story { image, directory })
    };
    told().map_err(|error| Failed::from(format!("{error:#}")))
}

/// Debian 13's own kernel, which the driver is not written for.
fn stable(release: &str) -> bool {
    release.starts_with("6.12.")
}

/// The kernel that the driver was installed for.
fn cloud(release: &str) -> bool {
    !stable(release) && release.ends_with("-cloud-amd64")
}

/// The kernel that came later.
fn newcomer(release: &str) -> bool {
    !stable(release) && !cloud(release)
}

/// Boots of one disk, one after another.
struct Story {
    image: PathBuf,
    directory: PathBuf,
}

impl Story {
    /// Boots one of the disk's kernels, which comes up with this driver, does and checks something, and
    /// powers the guest off in an orderly way.
    fn boot(
        &self,
        name: &str,
        kernel: fn(&str) -> bool,
        driver: Driver,
        command_line: &str,
        check: impl FnOnce(&mut Vm) -> Result<()>,
    ) -> Result<()> {
        self.boot_without(name, kernel, driver, command_line, |vm| {
            vm.expect_probe()?;
            check(vm)
        })
    }

    /// Boots one of the kernels, which need not come up with this driver or any other.
    fn boot_without(
        &self,
        name: &str,
        kernel: fn(&str) -> bool,
        driver: Driver,
        command_line: &str,
        check: impl FnOnce(&mut Vm) -> Result<()>,
    ) -> Result<()> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory)?;
        let releases = Disk::releases(&self.image)?;
        let release = releases
            .iter()
            .find(|release| kernel(release))
            .with_context(|| format!("{name}: no such kernel among {releases:?}"))?;
        println!("{name}: Linux {release} {command_line}");
        let setup = Setup {
            machine: Machine {
                memory_mib: 2048,
                disk: Some(Disk {
                    image: self.image.clone(),
                    release: release.clone(),
                }),
                command_line: command_line.to_owned(),
                devices: ["-nic", "user,model=virtio-net-pci"]
                    .map(str::to_owned)
                    .into(),
                ..Machine::default()
            },
            device: Device::Qemu(Features::QEMU),
            driver,
            wire: Wire::PfnArray,
            plugged: true,
        };
        let run = || {
            let mut vm = Vm::boot(&setup, &directory)?;
            check(&mut vm)?;
            vm.finish()
        };
        run().with_context(|| format!("{name}\n{}", logs(&directory)))
    }
}

/// Checks that the balloon obeys, and leaves it empty.
fn obeys(vm: &mut Vm) -> Result<()> {
    let pages = vm.ram / 2;
    vm.reach(pages)?;
    vm.reach(0).map(|_| ())
}

/// Checks that only one of the two drivers is loaded.
fn alone(vm: &mut Vm, module: &str, other: &str) -> Result<()> {
    vm.guest
        .shell(&format!(
            "test -e /sys/module/{module} && ! test -e /sys/module/{other}"
        ))
        .with_context(|| format!("{module} is to be loaded, {other} not"))
        .map(|_| ())
}

fn only_ours(vm: &mut Vm) -> Result<()> {
    alone(vm, "virtio_balloon_bmap", "virtio_balloon")
}

fn only_stock(vm: &mut Vm) -> Result<()> {
    alone(vm, "virtio_balloon", "virtio_balloon_bmap")
}

/// Checks that no driver is loaded for the balloon, at boot or when it is told of once more.
fn neither(vm: &mut Vm) -> Result<()> {
    vm.guest
        .shell(
            "udevadm trigger --settle --action=add --subsystem-match=virtio && \
             udevadm settle && ! ls -d /sys/module/virtio_balloon*",
        )
        .context("a driver that is blacklisted is loaded")
        .map(|_| ())
}

/// Kernels without the driver, or that refuse it, have virtio_balloon. The others have the driver,
/// until it is uninstalled.
fn installed(story: &Story) -> Result<()> {
    let stock = |vm: &mut Vm| {
        only_stock(vm)?;
        obeys(vm)
    };
    story.boot("another_kernel", stable, Driver::Stock, "", stock)?;
    // DKMS signs with a key that this machine does not know.
    let enforced = "module.sig_enforce=1";
    story.boot("refused", cloud, Driver::Stock, enforced, stock)?;
    // Who wants no balloon blacklists what he knows, or both.
    for (name, blacklist) in [
        ("blacklisted", "modprobe.blacklist=virtio_balloon"),
        (
            "both_blacklisted",
            "modprobe.blacklist=virtio_balloon,virtio_balloon_bmap",
        ),
    ] {
        story.boot_without(name, cloud, OURS, blacklist, neither)?;
    }
    story.boot("in_its_place", cloud, OURS, "", |vm| {
        only_ours(vm)?;
        obeys(vm)?;
        vm.guest.shell("modprobe virtio_balloon")?;
        only_ours(vm)?;

        install_again(vm)?;
        uninstall(vm)
    })?;
    story.boot("uninstalled", cloud, Driver::Stock, "", stock)
}

/// Where all is as it should be, nothing is touched; where virtio_balloon is loaded, its balloon is
/// taken over.
fn install_again(vm: &mut Vm) -> Result<()> {
    let install = format!("make -C {CLONE} install");
    let pages = vm.ram / 4;
    vm.reach(pages)?;
    vm.guest.shell_within(SHORT, &install)?;
    vm.expect_balloon(pages)?;

    vm.guest
        .shell("rmmod virtio_balloon_bmap && modprobe --ignore-install virtio_balloon")?;
    only_stock(vm)?;
    vm.guest.shell_within(SHORT, &install)?;
    vm.expect_probe()?;
    only_ours(vm)?;
    vm.await_actual(pages)?;
    vm.expect_balloon(pages)
}

/// virtio_balloon has the balloon at once, and nothing of the driver is left on the disk.
fn uninstall(vm: &mut Vm) -> Result<()> {
    let pages = vm.ram / 4;
    vm.guest
        .shell_within(SHORT, &format!("make -C {CLONE} uninstall"))?;
    only_stock(vm)?;
    vm.await_actual(pages)?;
    vm.expect_balloon(pages)?;
    let left = vm.guest.shell(
        "find /etc /usr /var -name '*virtio?balloon?bmap*'; grep virtio.balloon.bmap /lib/modules/*/modules.* || true",
    )?;
    ensure!(left.trim().is_empty(), "uninstalled, but there is {left}");
    Ok(())
}

/// A kernel that was installed after the driver, with virtio_balloon in all initramfs: DKMS has built
/// the driver for it, and no initramfs is too early with the other.
fn upgraded(story: &Story) -> Result<()> {
    story.boot("newcomer", newcomer, OURS, "", |vm| {
        only_ours(vm)?;
        obeys(vm)
    })?;
    story.boot("another_kernel", stable, Driver::Stock, "", |vm| {
        only_stock(vm)?;
        obeys(vm)
    })
}

/// The same where dracut has made all initramfs.
fn dracut(story: &Story) -> Result<()> {
    let blacklist = "modprobe.blacklist=virtio_balloon";
    story.boot_without("blacklisted", cloud, OURS, blacklist, neither)?;
    story.boot("in_its_place", cloud, OURS, "", |vm| {
        only_ours(vm)?;
        obeys(vm)
    })?;
    story.boot("another_kernel", stable, Driver::Stock, "", |vm| {
        only_stock(vm)?;
        obeys(vm)
    })
}

/// The commands of README.md, in a running guest that has never seen them.
fn in_the_guest(story: &Story) -> Result<()> {
    story.boot("before", stable, Driver::Stock, "", |vm| {
        for block in ["packages", "install"] {
            let said = vm
                .guest
                .shell_within(LONG, &format!("sh -ex /root/{block}"))?;
            println!("{said}");
        }
        only_stock(vm)
    })?;
    story.boot("after", cloud, OURS, "", |vm| {
        only_ours(vm)?;
        obeys(vm)
    })
}
