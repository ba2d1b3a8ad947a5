// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's statistics as they come in.

use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use thiserror::Error;

use crate::chain::ChainError;
use crate::counters::reject;
use crate::polling::Polling;
use crate::statistics::Statistics;
use crate::statistics::StatisticsCounters;
use crate::statistics::StatisticsLength;

/// The statistics of one virtual machine. They outlive its driver.
#[derive(Debug, Default)]
pub struct Collector {
    /// When the guest is asked.
    pub polling: Polling,
    last: Statistics,
    counters: StatisticsCounters,
}

/// Why a message was given no attention.
#[derive(Debug, Error)]
enum MessageError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Length(#[from] StatisticsLength),
}

impl Collector {
    /// The last statistics.
    pub fn last(&self) -> &Statistics {
        &self.last
    }

    /// What came so far.
    pub fn counters(&self) -> StatisticsCounters {
        self.counters
    }

    /// Counts one request for newer statistics.
    pub fn count_request(&mut self) {
        self.counters.requests += 1;
    }

    /// Takes in a message; what is malformed leaves the last statistics as they are.
    pub fn receive(&mut self, message: Result<&[u8], ChainError>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        let decode = |bytes| Statistics::decode(bytes, seconds).map_err(MessageError::from);
        match message.map_err(MessageError::from).and_then(decode) {
            Ok((statistics, unknown)) => {
                self.last = statistics;
                self.counters.updates += 1;
                self.counters.unknown_tags += unknown;
            }
            Err(error) => reject(&mut self.counters.rejected, "statistics", &error),
        }
        self.polling.wait(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_messages_are_counted_and_change_nothing() {
        let mut collector = Collector::default();
        collector.receive(Ok(&[
            4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]));
        let good = collector.last().clone();
        assert_eq!(
            good.to_json()["stats"]["stat-free-memory"],
            0x0807_0605_0403_0201_u64
        );
        assert_ne!(good.to_json()["last-update"], 0);
        collector.receive(Ok(&[0; 11]));
        collector.receive(Err(ChainError::Writable));
        assert_eq!(*collector.last(), good);
        let expected = StatisticsCounters {
            requests: 0,
            updates: 1,
            unknown_tags: 1,
            rejected: 2,
        };
        assert_eq!(collector.counters(), expected);
    }

    #[test]
    fn any_message_ends_the_wait_for_an_answer() {
        for message in [Ok(&[] as &[u8]), Err(ChainError::Broken)] {
            let mut collector = Collector::default();
            collector.polling.set_interval(1000, Instant::now());
            assert!(collector.polling.take_due(Instant::now()));
            collector.receive(message);
            assert!(collector.polling.next_due(Instant::now()).is_some());
        }
    }
}
