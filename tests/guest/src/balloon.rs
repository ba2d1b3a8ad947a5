// SPDX-License-Identifier: GPL-2.0-only

//! Balloon devices: QEMU's own and the daemon's.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};
use tempfile::TempDir;

use crate::environment;
use crate::process::{wait_until, Process};
use crate::qmp::Qmp;

/// The balloon's id in QEMU.
pub const DEVICE_ID: &str = "balloon0";
/// The id of the connection to the daemon.
pub const CHARDEV_ID: &str = "vhost0";

/// The id of the thread that hints run in.
const THREAD_ID: &str = "hints0";

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// QEMU's virtio-balloon.
    Qemu(Features),
    /// The same with the patches in host/qemu.
    NativeQemu(Features),
    /// `vhost-device-balloon`.
    Daemon(Features),
}

/// What a device offers beside statistics, which both always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// PAGE_BITMAP, which QEMU has with the patches only.
    pub page_bitmap: bool,
    /// MUST_TELL_HOST, which only the daemon has.
    pub must_tell_host: bool,
    /// DEFLATE_ON_OOM.
    pub deflate_on_oom: bool,
    /// REPORTING.
    pub free_page_reporting: bool,
    /// FREE_PAGE_HINT, which only QEMU has.
    pub free_page_hint: bool,
    /// PAGE_POISON.
    pub page_poison: bool,
    /// And to the trial, what [`crate::vm::Vm::leave_unserved`] takes. Only the daemon has that.
    pub test_commands: bool,
}

impl Features {
    /// What QEMU's device offers where nobody says anything else.
    pub const QEMU: Self = Self {
        page_bitmap: false,
        must_tell_host: false,
        deflate_on_oom: false,
        free_page_reporting: false,
        free_page_hint: false,
        page_poison: true,
        test_commands: false,
    };
    /// All there is for a guest.
    pub const ALL: Self = Self {
        page_bitmap: true,
        must_tell_host: true,
        deflate_on_oom: true,
        free_page_reporting: true,
        free_page_hint: true,
        page_poison: true,
        test_commands: false,
    };
}

impl Device {
    /// The daemon, with or without page bitmaps.
    pub fn daemon(page_bitmap: bool) -> Self {
        Self::Daemon(Features {
            page_bitmap,
            ..Features::default()
        })
    }

    /// The daemon that wants to be told before pages are used again.
    pub fn daemon_to_be_told(page_bitmap: bool) -> Self {
        Self::Daemon(Features {
            page_bitmap,
            must_tell_host: true,
            ..Features::default()
        })
    }

    /// QEMU with the patches in host/qemu, with or without page bitmaps.
    pub fn native_qemu(page_bitmap: bool) -> Self {
        Self::NativeQemu(Features {
            page_bitmap,
            ..Features::QEMU
        })
    }

    /// What it offers.
    pub fn features(&mut self) -> &mut Features {
        match self {
            Self::Qemu(features) | Self::NativeQemu(features) | Self::Daemon(features) => features,
        }
    }

    /// What it needs QEMU to have, as arguments.
    pub fn needs(self) -> Vec<String> {
        match self {
            Self::Qemu(features) | Self::NativeQemu(features) if features.free_page_hint => {
                vec!["-object".into(), format!("iothread,id={THREAD_ID}")]
            }
            _ => Vec::new(),
        }
    }

    /// QEMU's description of the device, for -device and device_add.
    pub fn description(self) -> Value {
        match self {
            Self::Qemu(features) | Self::NativeQemu(features) => {
                let mut device = json!({
                    "driver": "virtio-balloon-pci", "id": DEVICE_ID,
                    "deflate-on-oom": features.deflate_on_oom,
                    "free-page-reporting": features.free_page_reporting,
                    "page-poison": features.page_poison,
                });
                if features.free_page_hint {
                    device["free-page-hint"] = json!(true);
                    device["iothread"] = json!(THREAD_ID);
                }
                if let Self::NativeQemu(_) = self {
                    device["page-bitmap"] = json!(features.page_bitmap);
                }
                device
            }
            Self::Daemon(_) => json!({
                "driver": "vhost-user-test-device-pci", "id": DEVICE_ID, "chardev": CHARDEV_ID,
                "virtio-id": 5, "num_vqs": 5, "vq_size": 128, "config_size": 16,
            }),
        }
    }
}

/// A running `vhost-device-balloon`; dropping it ends it.
pub struct Daemon {
    process: Process,
    /// Its control socket.
    pub qmp: Qmp,
    sockets: TempDir,
}

impl Daemon {
    /// Starts a daemon for QEMU, whose output goes to `daemon.log` in `directory`.
    pub fn start(features: Features, directory: &Path) -> Result<Self> {
        Self::start_with(features, &[], directory)
    }

    /// Starts a daemon with further options.
    pub fn start_with(features: Features, options: &[&str], directory: &Path) -> Result<Self> {
        // Not in `directory`: the path of a socket must be short.
        let sockets = tempfile::Builder::new().prefix("vbb-").tempdir()?;
        let control = sockets.path().join("control");
        let log = directory.join("daemon.log");
        let mut command = Command::new(environment::device()?);
        command
            .arg("--socket-path")
            .arg(sockets.path().join("vhost"));
        command.arg("--control-path").arg(&control);
        command.arg(format!(
            "--page-bitmap={}",
            if features.page_bitmap { "on" } else { "off" }
        ));
        for (offered, option) in [
            (features.must_tell_host, "--must-tell-host"),
            (features.deflate_on_oom, "--deflate-on-oom"),
            (features.free_page_reporting, "--free-page-reporting"),
            (features.page_poison, "--page-poison"),
            (features.test_commands, "--test-commands"),
        ] {
            if offered {
                command.arg(option);
            }
        }
        command.args(options);
        let mut process = Process::spawn("vhost-device-balloon", command, &log, Vec::new())?;
        let mut connection = None;
        wait_until(
            Duration::from_secs(20),
            "the daemon's control socket",
            || {
                process.expect_alive()?;
                connection = UnixStream::connect(&control).ok();
                Ok(connection.is_some())
            },
        )
        .with_context(|| {
            format!(
                "the daemon says: {}",
                fs::read_to_string(&log).unwrap_or_default().trim()
            )
        })?;
        let qmp = Qmp::new(connection.context("no connection")?, "vhost-device-balloon")?;
        Ok(Self {
            process,
            qmp,
            sockets,
        })
    }

    /// The path that QEMU connects to.
    pub fn socket_path(&self) -> String {
        self.sockets.path().join("vhost").display().to_string()
    }

    /// Fails when the daemon has ended.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.process.expect_alive()
    }

    /// Asks the daemon to end, as an operator would, and expects that it ends well.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        let status = self.process.wait(Duration::from_secs(20))?;
        if !status.success() {
            bail!("the daemon ended with {status}");
        }
        Ok(())
    }
}
