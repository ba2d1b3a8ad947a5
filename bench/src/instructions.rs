//! Instructions of the guest's kernel, counted by a plugin of QEMU's emulation.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use guest_tests::accelerator::Accelerator;
use guest_tests::environment;

use crate::peer::{start, Peer};
use crate::plan::{State, Subject, Zeroing};
use crate::record::{Instructions, Way};
use crate::times::{fits, go, move_pages, prepare, Amounts};

/// What goes on in the guest once the device has been told of all is counted too.
const AFTERMATH: Duration = Duration::from_millis(50);
/// The plugin copies its counts more often than that.
const COPY_TIMEOUT: Duration = Duration::from_secs(10);

/// Instructions since the guest's start.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Count {
    kernel: u64,
    modules: u64,
}

impl Count {
    fn since(self, earlier: Self) -> Self {
        Self {
            kernel: self.kernel - earlier.kernel,
            modules: self.modules - earlier.modules,
        }
    }
}

/// The file that the plugin copies its counts to: bench/plugin/count.c has its layout.
struct Counts {
    path: PathBuf,
}

impl Counts {
    /// A count that is not older than this call.
    fn now(&self) -> Result<Count> {
        let file = File::open(&self.path).context("the plugin has made no file")?;
        let deadline = Instant::now() + COPY_TIMEOUT;
        let [before, ..] = words(&file)?;
        loop {
            let [copies, kernel, modules] = words(&file)?;
            // One copy may have been half done at the call.
            if copies >= before + 2 {
                return Ok(Count { kernel, modules });
            }
            ensure!(Instant::now() < deadline, "the plugin counts no more");
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// What is executed while `work` is done and in its aftermath, and then in as long a time of rest.
    fn of(&self, work: impl FnOnce() -> Result<()>) -> Result<(Count, Count)> {
        let start = Instant::now();
        let before = self.now()?;
        work()?;
        thread::sleep(AFTERMATH);
        let after = self.now()?;
        let time = start.elapsed();
        thread::sleep(time);
        Ok((after.since(before), self.now()?.since(after)))
    }
}

fn words(file: &File) -> Result<[u64; 3]> {
    let mut bytes = [0; 24];
    file.read_exact_at(&mut bytes, 0)?;
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    Ok([word(0), word(8), word(16)])
}

/// Boots a guest under emulation and counts; what it finds goes to `found`.
pub fn measure(
    amounts: Amounts,
    subject: Subject,
    states: &[State],
    repetitions: u32,
    logs: &Path,
    found: &mut Vec<Instructions>,
) -> Result<()> {
    let counts = Counts {
        path: logs.join("counts"),
    };
    let mut machine = amounts.machine(&format!("nokaslr {}", Zeroing::Off.word()));
    machine.accelerator = Some(Accelerator::Tcg);
    machine.devices.extend([
        "-plugin".into(),
        format!(
            "{},counts={}",
            environment::plugin()?.display(),
            counts.path.display()
        ),
    ]);
    let mut peer = start(subject, machine, amounts.moved_mib, logs)?;
    move_pages(&mut *peer, amounts.moved())?;
    move_pages(&mut *peer, 0)?;
    for &state in states.iter().filter(|&&state| fits(subject, state)) {
        let pages = prepare(&mut *peer, state, amounts)?;
        for repetition in 1..=repetitions {
            for (way, target) in [(Way::Inflate, pages), (Way::Deflate, 0)] {
                let (count, idle) = count(&counts, &mut *peer, target)?;
                found.push(Instructions {
                    subject,
                    state,
                    way,
                    repetition,
                    pages,
                    kernel: count.kernel,
                    modules: count.modules,
                    idle_kernel: idle.kernel,
                    idle_modules: idle.modules,
                });
            }
        }
        if state == State::Scattered {
            peer.guest().release()?;
        }
    }
    peer.finish()
}

fn count(counts: &Counts, peer: &mut dyn Peer, target: u64) -> Result<(Count, Count)> {
    let found = counts.of(|| go(peer, target).map(|_| ()))?;
    peer.expect_taken(target)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_that_is_copied_anew_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let counts = Counts {
            path: directory.path().join("counts"),
        };
        assert!(counts.now().is_err());
        let file = File::create(&counts.path).unwrap();
        let write = |words: [u64; 3]| {
            file.write_all_at(&words.map(u64::to_ne_bytes).concat(), 0)
                .unwrap();
        };
        write([7, 1, 1]);
        thread::scope(|scope| {
            let count = scope.spawn(|| counts.now().unwrap());
            thread::sleep(Duration::from_millis(50));
            write([8, 2, 2]);
            thread::sleep(Duration::from_millis(50));
            assert!(!count.is_finished());
            write([9, 30, 3]);
            let found = Count {
                kernel: 30,
                modules: 3,
            };
            assert_eq!(count.join().unwrap(), found);
        });
    }
}
