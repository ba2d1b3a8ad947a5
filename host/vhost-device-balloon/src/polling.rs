// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! When the guest is asked for newer statistics.

use std::time::Duration;
use std::time::Instant;

/// The polling interval, and when it is over.
#[derive(Debug, Default)]
pub struct Polling {
    /// In seconds; 0 if the guest is not asked.
    interval: u32,
    due: Option<Instant>,
}

impl Polling {
    /// The interval in seconds, 0 if the guest is not asked.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// Sets the interval in seconds; 0 ends the polling. A guest that was not asked before is asked
    /// at once.
    pub fn set_interval(&mut self, seconds: u32, now: Instant) {
        if seconds == self.interval {
            return;
        }
        let begins = self.interval == 0;
        self.interval = seconds;
        self.wait(now);
        if begins {
            self.due = Some(now);
        }
    }

    /// How long until the guest is to be asked, if at all.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// Whether the guest is to be asked now. Then it need not be again before [`Self::wait`].
    pub fn take_due(&mut self, now: Instant) -> bool {
        let due = self.next_due(now) == Some(Duration::ZERO);
        if due {
            self.due = None;
        }
        due
    }

    /// Begins an interval: the guest has answered, or could not be asked.
    pub fn wait(&mut self, now: Instant) {
        let interval = Duration::from_secs(self.interval.into());
        self.due = (self.interval > 0).then(|| now + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_asked_at_once_and_then_each_interval_after_its_answer() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut polling = Polling::default();
        assert_eq!(polling.next_due(start), None);
        assert!(!polling.take_due(start));
        polling.set_interval(2, start);
        assert!(polling.take_due(start));
        assert!(!polling.take_due(after(9000)), "it has not answered yet");
        assert_eq!(polling.next_due(after(9000)), None);
        polling.wait(after(9000));
        assert!(!polling.take_due(after(10_999)));
        let left = Duration::from_millis(1);
        assert_eq!(polling.next_due(after(10_999)), Some(left));
        assert!(polling.take_due(after(11_000)));
    }

    #[test]
    fn a_new_interval_counts_from_now() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut polling = Polling::default();
        polling.set_interval(100, start);
        assert!(polling.take_due(start));
        polling.wait(start);
        polling.set_interval(3, after(1));
        assert_eq!(polling.next_due(after(1)), Some(Duration::from_secs(3)));
        polling.set_interval(3, after(2));
        assert_eq!(polling.next_due(after(2)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn zero_ends_the_polling() {
        let start = Instant::now();
        let mut polling = Polling::default();
        polling.set_interval(1, start);
        polling.set_interval(0, start);
        assert_eq!(polling.next_due(start), None);
        polling.wait(start);
        assert_eq!(polling.next_due(start), None);
        assert_eq!(polling.interval(), 0);
        polling.set_interval(u32::MAX, start);
        assert!(polling.take_due(start));
        polling.wait(start);
        assert!(polling.next_due(start).is_some());
    }
}
