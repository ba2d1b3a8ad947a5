// SPDX-License-Identifier: GPL-2.0-only

//! A live migration of a guest to a second QEMU, by way of a file.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;
use serde_json::{json, Value};

use crate::process::wait_until;
use crate::vm::Vm;

/// Bytes a second that are as good as none.
const CRAWL: u64 = 4096;
/// Bytes a second that are no limit.
const RUSH: u64 = 1 << 40;
const PATIENCE: Duration = Duration::from_secs(120);

/// The guest's memory, as the migration sees it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ram {
    /// Bytes that went out.
    pub transferred: u64,
    /// Bytes that have still to go.
    pub remaining: u64,
    /// Bytes of pages that went out as they are, and not as a word about their contents.
    pub normal_bytes: u64,
}

impl Vm {
    /// Begins to migrate the guest to `file`, so slowly that hardly anything goes out until
    /// [`Self::end_migration`].
    pub fn begin_migration(&mut self, file: &Path) -> Result<()> {
        self.set_bandwidth(CRAWL)?;
        let file = file.to_str().context("a path is not UTF-8")?;
        self.qemu
            .qmp
            .execute("migrate", json!({ "uri": format!("file:{file}") }))?;
        wait_until(PATIENCE, "the migration to begin", || {
            Ok(self.migration()?.1.is_some())
        })
    }

    /// How far the migration is.
    pub fn migrating_ram(&mut self) -> Result<Ram> {
        let (status, ram) = self.migration()?;
        ram.with_context(|| format!("a migration that is {status} has no memory"))
    }

    /// Lets the migration go to its end, and the guest go on from `file` in a second QEMU. Returns
    /// what went out.
    pub fn end_migration(&mut self, file: &Path) -> Result<Ram> {
        self.set_bandwidth(RUSH)?;
        self.await_migration("completed")?;
        let ram = self.migrating_ram()?;
        self.go_on(Some(file))?;
        Ok(ram)
    }

    /// Gives the migration up; the guest stays where it is.
    pub fn cancel_migration(&mut self) -> Result<()> {
        self.qemu.qmp.execute("migrate_cancel", Value::Null)?;
        self.await_migration("cancelled")
    }

    fn set_bandwidth(&mut self, bytes: u64) -> Result<()> {
        let parameters = json!({ "max-bandwidth": bytes });
        self.qemu
            .qmp
            .execute("migrate-set-parameters", parameters)
            .map(|_| ())
    }

    fn await_migration(&mut self, end: &str) -> Result<()> {
        wait_until(PATIENCE, "the migration to end", || {
            let (status, _) = self.migration()?;
            if ["failed", "cancelled", "completed"].contains(&status.as_str()) {
                ensure!(status == end, "the migration has {status}, not {end}");
                return Ok(true);
            }
            Ok(false)
        })
    }

    /// The migration's status, and what it says of the guest's memory.
    fn migration(&mut self) -> Result<(String, Option<Ram>)> {
        let mut info = self.qemu.qmp.execute("query-migrate", Value::Null)?;
        let Value::String(status) = info["status"].take() else {
            bail!("no status in {info}");
        };
        Ok((status, serde_json::from_value(info["ram"].take())?))
    }
}
