// SPDX-License-Identifier: GPL-2.0-only

//! Judgement of a guest's kernel log: silence, a warning or a trace is a failure.

use std::fs;
use std::path::Path;

use anyhow::{bail, Result};

use crate::protocol::READY;

/// What no healthy guest's kernel says.
const TROUBLE: &[&str] = &[
    "WARNING:",
    "BUG:",
    "BUG ",
    "kernel BUG at",
    "Oops",
    "Call Trace",
    "general protection",
    "unable to handle",
    "Unable to handle",
    "hung task",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "rcu: INFO",
    "self-detected stall",
    "refcount_t",
    "use-after-free",
    "Kernel panic",
    "rust_kernel: panicked",
    "panicked at",
    "Bad page",
    "bad page",
    "page allocation failure",
    "Out of memory",
    "oom-killer",
    "invoked oom",
    "vmstat_refresh",
    "leak",
    "segfault",
    "disabling IRQ",
    "nobody cared",
    "probe with driver virtio_balloon",
];

/// What a trial brings about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A process is killed for want of memory: the one that the tests have for it.
    OomKill,
    /// The kernel crashes because it was asked to.
    Crash,
}

impl Incident {
    /// The trouble in the kernel's report of it: words of each line.
    fn report(self) -> &'static [[&'static str; 2]] {
        match self {
            Self::OomKill => &[
                ["", "invoked oom-killer"],
                ["", "Call Trace"],
                ["Out of memory: Killed process", "(guest-agent)"],
            ],
            Self::Crash => &[
                ["Kernel panic", "sysrq triggered crash"],
                ["", "Call Trace"],
            ],
        }
    }
}

/// What a kernel with debugging says at boot of the trouble that it looks for.
const HARMLESS: &[&str] = &[
    "kmemleak: Kernel memory leak detector initialized",
    "RCU callback double-/use-after-free debug is enabled",
];

/// Fails unless the log proves `boots` boots and these incidents, in this order, and holds nothing
/// else of what a healthy guest never says.
pub fn audit(log: &str, boots: usize, incidents: &[Incident]) -> Result<()> {
    let proofs = proofs_of_boot(log);
    if proofs != boots {
        bail!("the guest's log proves {proofs} boots, not {boots}");
    }
    let bad = trouble(log);
    let expected: Vec<_> = incidents
        .iter()
        .flat_map(|incident| incident.report())
        .collect();
    let is_expected = bad.len() == expected.len()
        && bad
            .iter()
            .zip(expected)
            .all(|(line, words)| words.iter().all(|word| line.contains(word)));
    if !is_expected {
        bail!(
            "the guest's log is not clean but for {incidents:?}:\n    {}",
            bad.join("\n    ")
        );
    }
    Ok(())
}

/// The lines that no healthy guest's kernel says.
pub fn trouble(log: &str) -> Vec<&str> {
    log.lines().filter(|line| is_trouble(line)).collect()
}

/// How often the log shows that the agent came up.
pub fn proofs_of_boot(log: &str) -> usize {
    log.lines().filter(|line| line.contains(READY)).count()
}

fn is_trouble(line: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    has(TROUBLE) && !has(HARMLESS)
}

/// The part of a log that a person wants to see: from the agent's first word, where there is one.
pub fn interesting(log: &str) -> &str {
    log.find(READY)
        .and_then(|at| log[..at].rfind('\n'))
        .map_or(log, |start| &log[start + 1..])
}

/// What the guest, the daemon and QEMU have left in a directory of logs, for a person to read.
pub fn logs(directory: &Path) -> String {
    let mut text = String::new();
    for name in ["guest.log", "daemon.log", "qemu.log"] {
        let path = directory.join(name);
        if let Ok(log) = fs::read(&path) {
            text += &format!(
                "--- {}\n{}\n",
                path.display(),
                interesting(&String::from_utf8_lossy(&log))
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "[ 0.1] Linux version 7.3\n[ 1.0] guest-agent: ready\n[ 1.5] all is well\n";

    #[test]
    fn a_clean_log_passes() {
        audit(CLEAN, 1, &[]).unwrap();
    }

    #[test]
    fn a_log_without_proof_of_boot_fails() {
        assert!(audit("", 1, &[]).is_err());
        assert!(audit(CLEAN, 2, &[]).is_err());
    }

    #[test]
    fn every_kind_of_trouble_fails_and_is_shown() {
        for word in TROUBLE {
            let log = format!("{CLEAN}[ 2.0] x {word} y\n");
            let error = audit(&log, 1, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("x {word} y")), "{error}");
        }
    }

    #[test]
    fn only_an_expected_kill_is_tolerated() {
        let kill = |name| {
            format!(
                "[ 3.0] guest-agent invoked oom-killer: gfp_mask=0x1\n[ 3.0] Call Trace:\n\
                 [ 3.1] Mem-Info:\n[ 3.2] Out of memory: Killed process 70 ({name}) total-vm:1kB\n"
            )
        };
        let log = format!("{CLEAN}{}", kill("guest-agent"));
        let once = [Incident::OomKill];
        audit(&log, 1, &once).unwrap();
        assert!(audit(&log, 1, &[]).is_err());
        assert!(audit(&log, 1, &[Incident::OomKill; 2]).is_err());
        assert!(audit(CLEAN, 1, &once).is_err());
        assert!(audit(&format!("{CLEAN}{}", kill("sh")), 1, &once).is_err());
        assert!(audit(&format!("{log}[ 4.0] Oops\n"), 1, &once).is_err());
    }

    #[test]
    fn only_an_expected_crash_is_tolerated() {
        let crash =
            |why| format!("[ 3.0] Kernel panic - not syncing: {why}\n[ 3.0] Call Trace:\n{CLEAN}");
        let log = format!("{CLEAN}{}", crash("sysrq triggered crash"));
        audit(&log, 2, &[Incident::Crash]).unwrap();
        assert!(audit(&log, 2, &[]).is_err());
        assert!(audit(&log, 2, &[Incident::OomKill]).is_err());
        assert!(audit(&log, 2, &[Incident::OomKill, Incident::Crash]).is_err());
        let log = format!("{CLEAN}{}", crash("Fatal exception"));
        assert!(audit(&log, 2, &[Incident::Crash]).is_err());
    }

    #[test]
    fn what_a_debug_kernel_looks_for_is_no_trouble() {
        for line in HARMLESS {
            assert!(
                TROUBLE.iter().any(|word| line.contains(word)),
                "{line} needs no exception"
            );
            audit(&format!("{CLEAN}{line}\n"), 1, &[]).unwrap();
        }
    }

    #[test]
    fn the_interesting_part_starts_at_the_agent() {
        assert!(interesting(CLEAN).starts_with("[ 1.0]"));
        assert_eq!(interesting("no agent\n"), "no agent\n");
    }
}
