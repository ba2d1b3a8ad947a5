// SPDX-License-Identifier: GPL-2.0-only

//! Instructions of the guest's kernel, counted by a plugin of QEMU's emulation.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use guest_tests::accelerator::Accelerator;
use guest_tests::environment;
use guest_tests::guest::Guest;

use crate::peer::{start, Peer};
use crate::plan::{State, Subject, Zeroing};
use crate::record::{Instructions, Way};
use crate::times::{fits, go, move_pages, prepare, Amounts};

/// What goes on in the guest once the device has been told of all is counted too.
const AFTERMATH: Duration = Duration::from_millis(50);
/// The plugin copies its counts more often than that.
const COPY_TIMEOUT: Duration = Duration::from_secs(10);
/// A function with less than one in so many is not kept.
const LEAST_SHARE: u64 = 500;
/// Where a kernel with nokaslr has its modules.
const MODULES_START: u64 = 0xffff_ffff_c000_0000;
/// Bytes of a pair of words.
const PAIR: usize = 16;

/// Instructions since the guest's start, by the block that they are in: its address, and how many. Of two counts
/// the blocks of the earlier are the first of the later.
struct Count(Vec<[u64; 2]>);

impl Count {
    fn since(&self, earlier: &Self) -> Self {
        let before = earlier.0.iter().map(|[_, count]| *count);
        let blocks = self.0.iter().zip(before.chain(std::iter::repeat(0)));
        Self(
            blocks
                .map(|([address, count], before)| [*address, count - before])
                .collect(),
        )
    }

    fn of_kernel(&self) -> u64 {
        self.0.iter().map(|[_, count]| count).sum()
    }

    fn of_modules(&self) -> u64 {
        let blocks = self.0.iter();
        blocks
            .filter(|[address, _]| *address >= MODULES_START)
            .map(|[_, count]| count)
            .sum()
    }

    fn of_functions(&self, symbols: &Symbols) -> BTreeMap<String, u64> {
        let mut functions = BTreeMap::new();
        for [address, count] in self.0.iter().filter(|[_, count]| *count > 0) {
            *functions.entry(symbols.name(*address)).or_default() += count;
        }
        functions
    }
}

/// The file that the plugin copies its counts to: tests/bench/plugin/count.c has its layout.
struct Counts {
    path: PathBuf,
}

impl Counts {
    /// A count that is not older than this call.
    fn now(&self) -> Result<Count> {
        let file = File::open(&self.path).context("the plugin has made no file")?;
        let deadline = Instant::now() + COPY_TIMEOUT;
        let [before, _] = pairs(&file, 0, 1)?[0];
        loop {
            let [copies, len] = pairs(&file, 0, 1)?[0];
            // One copy may have been half done at the call.
            if copies >= before + 2 {
                return Ok(Count(pairs(&file, 1, usize::try_from(len)?)?));
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
        Ok((after.since(&before), self.now()?.since(&after)))
    }
}

/// `len` pairs of words of a file, from a pair on: all that it consists of.
fn pairs(file: &File, from: usize, len: usize) -> Result<Vec<[u64; 2]>> {
    let mut bytes = vec![0; len * PAIR];
    file.read_exact_at(&mut bytes, (from * PAIR) as u64)?;
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
    let pairs = bytes.chunks_exact(PAIR);
    Ok(pairs
        .map(|pair| [word(&pair[..8]), word(&pair[8..])])
        .collect())
}

/// Functions of a guest's kernel by their addresses.
struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Of a running guest.
    fn read(guest: &mut Guest) -> Result<Self> {
        Ok(Self::parse(&guest.shell("grep ' [tTwW] ' /proc/kallsyms")?))
    }

    /// What /proc/kallsyms has: an address, a type, a name, and a module's name if it is of one.
    fn parse(text: &str) -> Self {
        let symbol = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let name = words.nth(1)?;
            Some((address, format!("{:#}", rustc_demangle::demangle(name))))
        };
        Self(text.lines().filter_map(symbol).collect())
    }

    fn name(&self, address: u64) -> String {
        let symbol = self.0.range(..=address).next_back();
        symbol.map_or_else(|| format!("{address:#x}"), |(_, name)| name.clone())
    }
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
    let symbols = Symbols::read(peer.guest())?;
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
                    kernel: count.of_kernel(),
                    modules: count.of_modules(),
                    idle_kernel: idle.of_kernel(),
                    idle_modules: idle.of_modules(),
                    functions: functions(&count, &idle, &symbols),
                });
            }
        }
        if state == State::Scattered {
            peer.guest().release()?;
        }
    }
    peer.finish()
}

/// The functions with most of the instructions, less what they have at rest, and the most first.
fn functions(count: &Count, idle: &Count, symbols: &Symbols) -> Vec<(String, u64)> {
    let mut functions = count.of_functions(symbols);
    for (name, at_rest) in idle.of_functions(symbols) {
        functions
            .entry(name)
            .and_modify(|count| *count = count.saturating_sub(at_rest));
    }
    let least = count.of_kernel() / LEAST_SHARE;
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.retain(|(_, count)| *count > least);
    functions.sort_by_key(|(_, count)| Reverse(*count));
    functions
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
        let write = |words: &[u64]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            file.write_all_at(&bytes, 0).unwrap();
        };
        write(&[7, 1, 100, 1]);
        thread::scope(|scope| {
            let count = scope.spawn(|| counts.now().unwrap());
            thread::sleep(Duration::from_millis(50));
            write(&[8, 1, 100, 2]);
            thread::sleep(Duration::from_millis(50));
            assert!(!count.is_finished());
            write(&[9, 2, 100, 30, MODULES_START, 3]);
            let count = count.join().unwrap();
            assert_eq!((count.of_kernel(), count.of_modules()), (33, 3));
        });
    }

    #[test]
    fn functions_are_those_whose_blocks_were_executed() {
        let symbols = Symbols::parse(
            "0000000000000060 T low\n0000000000000100 t high\t[module]\n\
             0000000000000200 T _RNvNtC3mod3sub4leaf\n",
        );
        let earlier = Count(vec![[0x60, 1000], [0x68, 0]]);
        let count = Count(vec![[0x60, 2000], [0x68, 500], [0x100, 1], [0x208, 3000]]);
        let idle = Count(vec![[0x60, 100]]);
        let found = functions(&count.since(&earlier), &idle, &symbols);
        let expected = [("mod::sub::leaf", 3000), ("low", 1400)];
        assert_eq!(
            found,
            expected.map(|(name, count)| (name.to_owned(), count))
        );
    }
}
