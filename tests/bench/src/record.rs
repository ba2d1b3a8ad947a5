// SPDX-License-Identifier: GPL-2.0-only

//! All that was measured, as it is kept in JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::plan::{Job, State, Subject, UmlKernel, Zeroing};

/// Up or down.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Memory goes to the host.
    Inflate,
    /// Memory comes back.
    Deflate,
}

impl Way {
    pub const ALL: [Self; 2] = [Self::Inflate, Self::Deflate];

    /// The queue's name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inflate => "inflate",
            Self::Deflate => "deflate",
        }
    }
}

/// Where and of what it was measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct About {
    pub processor: String,
    pub processors: usize,
    pub host_memory_mib: u64,
    pub host_kernel: String,
    pub accelerator: String,
    pub qemu: String,
    pub guest_kernel: String,
    pub guest_mib: u64,
    pub moved_mib: u64,
    /// When it began, UTC.
    pub date: String,
}

/// What went through a queue, as one side counts it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
    pub notifications: u64,
}

impl Traffic {
    /// What has come since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            messages: self.messages - earlier.messages,
            bytes: self.bytes - earlier.bytes,
            notifications: self.notifications - earlier.notifications,
        }
    }
}

/// One way of one balloon.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Leg {
    pub zeroing: Zeroing,
    pub round: u32,
    pub subject: Subject,
    pub state: State,
    pub way: Way,
    pub pages: u64,
    /// From the request at the monitor until the device has been told of all.
    pub seconds: f64,
    /// What the device counted, where it is ours.
    pub device: Option<Traffic>,
    /// What the driver counted, where it is ours.
    pub driver: Option<Traffic>,
    /// The guest's RAM in the host's memory, in bytes.
    pub host_before: u64,
    pub host_most: u64,
    pub host_after: u64,
    /// The 2 MiB stretches of the guest that the balloon had pages in, where the device knows.
    pub span_mib: Option<u64>,
}

/// The instructions of one way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Instructions {
    pub subject: Subject,
    pub state: State,
    pub way: Way,
    pub repetition: u32,
    pub pages: u64,
    /// Of the guest's kernel, with its modules.
    pub kernel: u64,
    /// Of its modules.
    pub modules: u64,
    /// The same in as long a time in which nothing was asked for.
    pub idle_kernel: u64,
    pub idle_modules: u64,
    /// What functions have most of `kernel`, less what they have of `idle_kernel`; the most first.
    pub functions: Vec<(String, u64)>,
}

/// The page allocator alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Allocation {
    pub zeroing: Zeroing,
    pub round: u32,
    pub order: u32,
    pub pages: u64,
    pub allocate_ns: u64,
    pub free_ns: u64,
}

/// The host's discard alone, of the pages that a balloon had.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Discard {
    pub round: u32,
    /// The guest whose balloon it was; none: all in one range.
    pub state: Option<State>,
    pub ranges: u64,
    pub bytes: u64,
    pub seconds: f64,
}

/// One way of one balloon in User-mode Linux.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Native {
    pub round: u32,
    pub kernel: UmlKernel,
    pub driver: String,
    pub way: Way,
    pub pages: u64,
    pub seconds: f64,
}

/// A job that did not come to its end.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Failure {
    pub job: Job,
    pub error: String,
}

/// All of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Record {
    pub about: About,
    pub done: Vec<Job>,
    pub legs: Vec<Leg>,
    pub instructions: Vec<Instructions>,
    pub allocations: Vec<Allocation>,
    pub discards: Vec<Discard>,
    pub natives: Vec<Native>,
    pub failures: Vec<Failure>,
}

impl Record {
    /// Reads what [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("not a record: {}", path.display()))
    }

    /// Reads what is there, if anything is.
    pub fn read_if_any(path: &Path) -> Result<Option<Self>> {
        let exists = path.try_exists();
        let exists = exists.with_context(|| format!("cannot read {}", path.display()))?;
        exists.then(|| Self::read(path)).transpose()
    }

    /// Replaces the file at once, so that there is always a whole one.
    pub fn write(&self, path: &Path) -> Result<()> {
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&part, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let job = Job::Times {
            zeroing: Zeroing::Off,
            round: 3,
            subject: Subject::VirtioMem,
        };
        let record = Record {
            done: vec![job, Job::Discard { round: 1 }],
            failures: vec![Failure {
                job,
                error: "no boot".into(),
            }],
            ..Record::default()
        };
        assert_eq!(Record::read_if_any(&path).unwrap(), None);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        assert_eq!(Record::read_if_any(&path).unwrap(), Some(record));
        fs::write(&path, "{").unwrap();
        let error = Record::read(&path).unwrap_err().to_string();
        assert!(error.contains("not a record"), "{error}");
    }
}
