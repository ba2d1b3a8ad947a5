// SPDX-License-Identifier: GPL-2.0-only

//! Where the prepared kernel, modules, QEMU and daemon are: the `VBB_*` variables that the Makefile
//! exports.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{bail, Context, Result};

/// Whose kernel the guests run: the one that `VBB_GUEST` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The distribution's, where the variable is not set.
    Distribution,
    /// `debug`: one of our own, which watches what drivers do, and takes its time.
    Debug,
    /// `builtin`: one of our own, which has the project's driver built in, and no modules.
    BuiltIn,
}

/// Which kernel it is.
pub fn kernel_kind() -> Result<Kernel> {
    match env::var("VBB_GUEST").as_deref() {
        Err(_) | Ok("") => Ok(Kernel::Distribution),
        Ok("debug") => Ok(Kernel::Debug),
        Ok("builtin") => Ok(Kernel::BuiltIn),
        Ok(other) => bail!("VBB_GUEST={other} is neither debug nor builtin"),
    }
}

/// How long to wait where `usual` is enough for the distribution's kernel on a machine that is not
/// too busy: `VBB_PATIENCE` times that.
pub fn patience(usual: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| match env::var("VBB_PATIENCE") {
        Ok(factor) => factor.parse().expect("VBB_PATIENCE is a whole number"),
        Err(_) => 2,
    });
    usual * *factor
}

/// The uncompressed or bzImage kernel of the guest.
pub fn kernel() -> Result<PathBuf> {
    file("VBB_KERNEL")
}

/// The project's `virtio-balloon-bmap.ko`.
pub fn module() -> Result<PathBuf> {
    file("VBB_MODULE")
}

/// The distribution's `virtio_balloon.ko`, uncompressed.
pub fn stock_module() -> Result<PathBuf> {
    file("VBB_STOCK_MODULE")
}

/// An executable that is or becomes `qemu-system-x86_64`.
pub fn qemu() -> Result<PathBuf> {
    file("VBB_QEMU")
}

/// The same with the patches in host/qemu.
pub fn native_qemu() -> Result<PathBuf> {
    file("VBB_QEMU_NATIVE")
}

/// The modules `FAULT.ko` with a fault built in, where `VBB_FAULTY_MODULES` names their directory.
pub fn faulty_modules() -> Result<Vec<(String, PathBuf)>> {
    modules_in("VBB_FAULTY_MODULES")
}

/// Further modules for the guest, where `VBB_MORE_MODULES` names their directory.
pub fn more_modules() -> Result<Vec<(String, PathBuf)>> {
    modules_in("VBB_MORE_MODULES")
}

/// The modules in the directory that a variable names, without `.ko`; none where it is not set.
fn modules_in(name: &str) -> Result<Vec<(String, PathBuf)>> {
    let Ok(directory) = variable(name) else {
        return Ok(Vec::new());
    };
    let mut modules = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            modules.push((name, path));
        }
    }
    modules.sort();
    Ok(modules)
}

/// Whether trials that only repeat others in a different place are wanted: `make check-long`.
pub fn long() -> bool {
    env::var_os("VBB_LONG").is_some()
}

/// Whether only few trials are wanted, since another kernel has stood them all.
pub fn short() -> bool {
    env::var_os("VBB_SHORT").is_some()
}

/// The daemon `vhost-device-balloon`.
pub fn device() -> Result<PathBuf> {
    file("VBB_DEVICE")
}

/// Where `make check-install` has put the disks of Debian guests.
pub fn disks() -> Option<PathBuf> {
    variable("VBB_DISKS").ok()
}

/// A statically linked busybox.
pub fn busybox() -> Result<PathBuf> {
    file("VBB_BUSYBOX")
}

/// The agent, which cargo builds beside the tests (`TARGET/deps/guest-*`) and the demonstration.
pub fn agent() -> Result<PathBuf> {
    let program = env::current_exe().context("path of this program")?;
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("guest-agent"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no guest-agent beside {}; build it with `cargo build -p guest-tests --bins`",
                program.display()
            )
        })
}

/// Makes the directory for artefacts of this name, empty, under the build directory.
pub fn artefacts(name: &str) -> Result<PathBuf> {
    empty(build_dir()?.join(name.replace("::", "/")))
}

/// Makes a directory, empty.
pub fn empty(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The directory under which all artefacts are kept.
pub fn build_dir() -> Result<PathBuf> {
    build_dir_of("guest-tests")
}

/// The directory of this name for what is built or found out.
pub fn build_dir_of(name: &str) -> Result<PathBuf> {
    let dir = variable("VBB_BUILD")?.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// User-mode Linux with both drivers, and the patches in `patches/linux`.
pub fn user_mode_linux() -> Result<PathBuf> {
    file("VBB_UML")
}

/// The same without the patches.
pub fn user_mode_linux_unpatched() -> Result<PathBuf> {
    file("VBB_UML_UNPATCHED")
}

/// The plugin that counts instructions under emulation.
pub fn plugin() -> Result<PathBuf> {
    file("VBB_PLUGIN")
}

fn file(name: &str) -> Result<PathBuf> {
    let path = variable(name)?;
    if !path.is_file() {
        bail!(
            "{name}={} is not a file; `make check` prepares it",
            path.display()
        );
    }
    Ok(path)
}

fn variable(name: &str) -> Result<PathBuf> {
    match env::var_os(name) {
        Some(value) if !value.is_empty() => Ok(Path::new(&value).to_path_buf()),
        _ => bail!("{name} is not set; run the guest tests by `make check`, the demonstration by `make run`"),
    }
}
