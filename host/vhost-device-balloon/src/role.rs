// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which queue is for what.
//!
//! Inflation and deflation have the first two queues. The others exist only if their feature is
//! negotiated, and are numbered densely: without statistics and hinting, reporting has queue 2.

use crate::virtio_balloon::feature;
use crate::virtio_balloon::VIRTIO_BALLOON_F_FREE_PAGE_HINT;
use crate::virtio_balloon::VIRTIO_BALLOON_F_REPORTING;
use crate::virtio_balloon::VIRTIO_BALLOON_F_STATS_VQ;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pages the guest gives away.
    Inflate,
    /// Pages the guest takes back.
    Deflate,
    /// The guest's statistics.
    Statistics,
    /// Free pages, as hints for a migration.
    Hinting,
    /// Free pages, to be discarded.
    Reporting,
}

/// The roles in the order of their queues, each with the features it needs.
const ROLES: [(Role, u64); 5] = [
    (Role::Inflate, 0),
    (Role::Deflate, 0),
    (Role::Statistics, feature(VIRTIO_BALLOON_F_STATS_VQ)),
    (Role::Hinting, feature(VIRTIO_BALLOON_F_FREE_PAGE_HINT)),
    (Role::Reporting, feature(VIRTIO_BALLOON_F_REPORTING)),
];

impl Role {
    /// All for which this device has a queue, if the driver wants it.
    pub fn offered() -> impl Iterator<Item = Self> {
        OFFERED.into_iter().map(|(_, role)| role)
    }

    /// The one among them that control clients call `name`.
    pub fn named(name: &str) -> Option<Self> {
        let mut offered = OFFERED.into_iter();
        offered.find_map(|(known, role)| (known == name).then_some(role))
    }

    /// What queue `index` is for under the negotiated `features`, if anything.
    pub fn of(index: usize, features: u64) -> Option<Self> {
        queues(features).nth(index)
    }

    /// The queue for this under the negotiated `features`, if there is one.
    pub fn queue(self, features: u64) -> Option<usize> {
        queues(features).position(|role| role == self)
    }
}

/// Those whose queues this device has, by the names that control clients use.
const OFFERED: [(&str, Role); 4] = [
    ("inflate", Role::Inflate),
    ("deflate", Role::Deflate),
    ("stats", Role::Statistics),
    ("reporting", Role::Reporting),
];

fn queues(features: u64) -> impl Iterator<Item = Role> {
    ROLES
        .into_iter()
        .filter(move |(_, needs)| features & needs == *needs)
        .map(|(role, _)| role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::*;

    #[test]
    fn queues_are_numbered_over_what_is_negotiated() {
        let stats = feature(1);
        let hint = feature(3);
        let report = feature(5);
        let others = feature(32) | feature(63) | feature(0) | feature(2) | feature(4);
        for (features, optional) in [
            (0, &[] as &[Role]),
            (stats, &[Statistics]),
            (hint, &[Hinting]),
            (report, &[Reporting]),
            (stats | hint, &[Statistics, Hinting]),
            (stats | report, &[Statistics, Reporting]),
            (hint | report, &[Hinting, Reporting]),
            (stats | hint | report, &[Statistics, Hinting, Reporting]),
        ] {
            for features in [features, features | others] {
                let all: Vec<Role> = (0..5)
                    .map_while(|index| Role::of(index, features))
                    .collect();
                assert_eq!(all[..2], [Inflate, Deflate]);
                assert_eq!(&all[2..], optional, "{features:#x}");
                assert_eq!(Role::of(all.len(), features), None);
                assert_eq!(Role::of(usize::MAX, features), None);
                for role in [Inflate, Deflate, Statistics, Hinting, Reporting] {
                    let queue = all.iter().position(|other| *other == role);
                    assert_eq!(role.queue(features), queue, "{features:#x} {role:?}");
                }
            }
        }
    }

    #[test]
    fn what_the_device_has_can_be_named() {
        let names = ["inflate", "deflate", "stats", "reporting"];
        let named: Vec<Role> = names.into_iter().filter_map(Role::named).collect();
        assert_eq!(named, [Inflate, Deflate, Statistics, Reporting]);
        assert!(Role::offered().eq(named));
        for unknown in ["hinting", "Inflate", ""] {
            assert_eq!(Role::named(unknown), None);
        }
    }
}
