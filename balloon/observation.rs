// SPDX-License-Identifier: GPL-2.0-only

//! What debugfs shows of a balloon: a line for each number.

use crate::{
    abstractions::{
        debugfs::Show,
        param,
        transport::Patience, //
    },
    balloon::{
        account::{
            Account,
            BRIEFLY_MS, //
        },
        config, //
    },
};
use kernel::fmt;

impl Show for Account {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "target {}",
            config::num_pages(&self.transport).unwrap_or(0)
        )?;
        writeln!(f, "actual {}", self.published())?;
        writeln!(f, "floor {}", param::floor_pages())?;
        let pause = self.oom.pause_left_ms().unwrap_or(0);
        writeln!(f, "growth_pause_ms {pause}")?;
        // Without waiting for somebody who waits for the host.
        let kept = self
            .lock_within(Patience::for_ms(BRIEFLY_MS))
            .is_some_and(|mut books| books.sender().keeps_page());
        writeln!(f, "kept {}", u8::from(kept))?;
        self.counters.write(f)
    }
}
