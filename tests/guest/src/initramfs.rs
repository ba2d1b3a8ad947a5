// SPDX-License-Identifier: GPL-2.0-only

//! The guest's root: busybox, the agent and the modules under test, as a newc cpio archive.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{anyhow, ensure, Context, Result};
use cpio::newc::{trailer, Builder, ModeFileType};

use crate::environment::{self, Kernel};

const INIT: &str = include_str!("init.sh");

/// Where the guest finds the project's module.
pub const MODULE: &str = "/modules/virtio-balloon-bmap.ko";
/// Where the guest finds the distribution's module.
pub const STOCK_MODULE: &str = "/modules/virtio_balloon.ko";

/// Where the guest finds the project's module with a fault built in.
pub fn faulty_module(fault: &str) -> String {
    module(fault)
}

/// Where the guest finds a further module.
pub fn module(name: &str) -> String {
    format!("/modules/{name}.ko")
}

/// The archive, made once a process.
pub fn path() -> Result<PathBuf> {
    static PATH: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    PATH.get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

/// Writes an archive with busybox and a script that is the first process.
pub fn write_minimal(path: &Path, init: &str) -> Result<()> {
    let mut file = fs::File::create(path).with_context(|| path.display().to_string())?;
    Archive::with_busybox(&mut file, init)?.finish()
}

fn build() -> Result<PathBuf> {
    let directory = environment::build_dir()?;
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    let mut archive = Archive::with_busybox(file.as_file_mut(), INIT)?;
    archive.add_stripped("bin/guest-agent", &environment::agent()?)?;
    if environment::kernel_kind()? != Kernel::BuiltIn {
        archive.add_stripped(&MODULE[1..], &environment::module()?)?;
        archive.add_stripped(&STOCK_MODULE[1..], &environment::stock_module()?)?;
        let more = environment::more_modules()?;
        for (name, file) in environment::faulty_modules()?.into_iter().chain(more) {
            archive.add_stripped(&module(&name)[1..], &file)?;
        }
    }
    archive.finish()?;
    let path = directory.join("initramfs.cpio");
    file.persist(&path)?;
    Ok(path)
}

struct Archive<W: Write> {
    inner: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn with_busybox(inner: W, init: &str) -> Result<Self> {
        let mut archive = Self { inner, inode: 0 };
        for directory in ["bin", "dev", "proc", "sys", "tmp", "modules"] {
            archive.add(directory, ModeFileType::Directory, 0o755, &[])?;
        }
        archive.add("init", ModeFileType::Regular, 0o755, init.as_bytes())?;
        archive.add_file("bin/busybox", &environment::busybox()?)?;
        archive.add("bin/sh", ModeFileType::Symlink, 0o777, b"busybox")?;
        Ok(archive)
    }

    fn add(&mut self, name: &str, kind: ModeFileType, mode: u32, data: &[u8]) -> Result<()> {
        self.inode += 1;
        let builder = Builder::new(name)
            .ino(self.inode)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind);
        let mut entry = builder.write(&mut self.inner, data.len().try_into()?);
        entry.write_all(data)?;
        entry.finish()?;
        Ok(())
    }

    fn add_file(&mut self, name: &str, source: &Path) -> Result<()> {
        let data = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.add(name, ModeFileType::Regular, 0o755, &data)
    }

    /// Adds a program or a module without what debuggers read, which is most of it: a guest under emulation
    /// takes a while to unpack that.
    fn add_stripped(&mut self, name: &str, source: &Path) -> Result<()> {
        let stripped = tempfile::NamedTempFile::new()?;
        let status = Command::new("strip")
            .args(["--strip-debug", "-o"])
            .args([stripped.path(), source])
            .status()
            .context("cannot start strip")?;
        ensure!(
            status.success(),
            "cannot strip {}: {status}",
            source.display()
        );
        self.add_file(name, stripped.path())
    }

    fn finish(mut self) -> Result<()> {
        trailer(&mut self.inner)?;
        self.inner.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read;

    #[test]
    fn what_goes_in_comes_out() {
        let mut bytes = Vec::new();
        let mut archive = Archive {
            inner: &mut bytes,
            inode: 0,
        };
        archive
            .add("bin", ModeFileType::Directory, 0o755, &[])
            .unwrap();
        archive
            .add("bin/x", ModeFileType::Regular, 0o755, b"hello")
            .unwrap();
        archive.finish().unwrap();

        let directory = Reader::new(bytes.as_slice()).unwrap();
        assert_eq!(
            (directory.entry().name(), directory.entry().mode()),
            ("bin", 0o040_755)
        );
        let mut file = Reader::new(directory.finish().unwrap()).unwrap();
        assert_eq!(
            (file.entry().name(), file.entry().mode()),
            ("bin/x", 0o100_755)
        );
        let mut data = String::new();
        file.read_to_string(&mut data).unwrap();
        assert_eq!(data, "hello");
        assert!(Reader::new(file.finish().unwrap())
            .unwrap()
            .entry()
            .is_trailer());
    }
}
