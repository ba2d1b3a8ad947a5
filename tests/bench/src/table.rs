// SPDX-License-Identifier: GPL-2.0-only

//! Tables for a person to read.

use comfy_table::{presets, CellAlignment, Table};
use guest_tests::vm::Driver;

use crate::allocator::ORDERS;
use crate::figures::{Case, Figures};
use crate::plan::{State, Subject, UmlKernel, Zeroing};
use crate::reach::{self, Bound};
use crate::record::{About, Way};
use crate::statistics::Summary;
use crate::uml;

/// What was not measured.
const NONE: &str = "-";

/// All that is known, as text; with so many functions of each guest's kernel.
pub fn render(figures: Figures, functions: usize) -> String {
    let mut text = about(&figures.0.about);
    for zeroing in Zeroing::ALL {
        for state in State::ALL {
            if let Some(table) = times(figures, zeroing, state) {
                text += &format!(
                    "\nGuest {}, {}; milliseconds per GiB\n{table}\n",
                    state.title(),
                    zeroing.title()
                );
            }
        }
    }
    if let Some(table) = instructions(figures) {
        text += &format!(
            "\nInstructions of the guest's kernel a page, {}\n{table}\n",
            Zeroing::Off.title()
        );
    }
    if let Some(table) = functions_table(figures, functions) {
        text += &format!("\nThe functions with most of them\n{table}\n");
    }
    if let Some(table) = natives(figures) {
        text += &format!("\nUser-mode Linux, our device; milliseconds per GiB\n{table}\n");
    }
    text += &format!("\nReach\n{}\n", reach_table(figures));
    for failure in &figures.0.failures {
        text += &format!("\nFAILED: {}: {}\n", failure.job.title(), failure.error);
    }
    text
}

fn about(about: &About) -> String {
    format!(
        "{}\n{} processors {}, {} MiB, Linux {}; {}; QEMU {}\n\
         Guest: Linux {}, {} MiB, 2 processors; {} MiB moved unless scattered\n",
        about.date,
        about.processors,
        about.processor,
        about.host_memory_mib,
        about.host_kernel,
        about.accelerator,
        about.qemu,
        about.guest_kernel,
        about.guest_mib,
        about.moved_mib
    )
}

fn new_table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One guest's times, what went over the wire, and the floors; none if nothing was measured.
fn times(figures: Figures, zeroing: Zeroing, state: State) -> Option<Table> {
    let mut table = new_table(
        &[
            "",
            "inflate",
            "min - max",
            "faster",
            "deflate",
            "min - max",
            "faster",
            "bytes/GiB in",
            "out",
            "notif./GiB in",
            "out",
            "host rise, MiB",
        ],
        1,
    );
    let mut runs = 0;
    for subject in Subject::ALL {
        let case = |subject, way| Case {
            zeroing,
            state,
            subject,
            way,
        };
        let [inflate, deflate] = Way::ALL.map(|way| case(subject, way));
        let Some(time) = figures.time(inflate) else {
            continue;
        };
        runs = runs.max(time.runs);
        let mut row = vec![subject.title().to_owned()];
        for case in [inflate, deflate] {
            let stock = Case {
                subject: subject.stock(),
                ..case
            };
            row.extend(time_cells(figures.time(case)));
            row.push(cell(figures.ratio(stock, case), |ratio| {
                format!("{} x", number(ratio))
            }));
        }
        for figure in [Figures::bytes, Figures::notifications] {
            for case in [inflate, deflate] {
                row.push(median(figure(&figures, case)));
            }
        }
        row.push(cell(figures.rise(inflate), |rise| {
            format!("{:.0}", rise.max)
        }));
        table.add_row(row);
    }
    if runs == 0 {
        return None;
    }
    for (title, inflate, deflate) in floors(figures, zeroing, state) {
        let mut row = vec![title];
        for summary in [inflate, deflate] {
            row.extend(time_cells(summary));
            row.push(NONE.into());
        }
        row.resize(12, NONE.into());
        table.add_row(row);
    }
    Some(table)
}

/// The floors of a guest: what each is, and the time to inflate and to deflate.
pub fn floors(
    figures: Figures,
    zeroing: Zeroing,
    state: State,
) -> Vec<(String, Option<Summary>, Option<Summary>)> {
    let mut floors = Vec::new();
    if state == State::Idle {
        for order in ORDERS {
            let [inflate, deflate] = Way::ALL.map(|way| figures.allocator(zeroing, order, way));
            if inflate.is_some() {
                floors.push((format!("floor: allocator, order {order}"), inflate, deflate));
            }
        }
        return floors;
    }
    for (found, title) in [
        (figures.discard(Some(state)), "discard, the same ranges"),
        (figures.discard(None), "discard, one range"),
    ] {
        if let Some((summary, ranges)) = found {
            floors.push((format!("floor: {title} ({ranges})"), Some(summary), None));
        }
    }
    floors
}

fn time_cells(summary: Option<Summary>) -> [String; 2] {
    [
        median(summary),
        cell(summary, |summary| {
            format!("{} - {}", number(summary.min), number(summary.max))
        }),
    ]
}

/// Instructions a page; none if none were counted.
fn instructions(figures: Figures) -> Option<Table> {
    let mut table = new_table(
        &[
            "", "guest", "inflate", "spread", "module", "idle", "deflate", "spread", "module",
            "idle",
        ],
        2,
    );
    for state in State::ALL {
        for subject in Subject::ALL {
            let mut row = vec![subject.title().to_owned(), state.title().to_owned()];
            for way in Way::ALL {
                let found = figures.instructions(state, subject, way);
                let idle = figures.idle_instructions(state, subject, way);
                row.extend([
                    median(found.map(|found| found.0)),
                    cell(found, |(kernel, _)| {
                        format!("{:.1} %", (kernel.max - kernel.min) / kernel.median * 1e2)
                    }),
                    median(found.map(|found| found.1)),
                    median(idle),
                ]);
            }
            if row[2] != NONE || row[6] != NONE {
                table.add_row(row);
            }
        }
    }
    (table.row_count() > 0).then_some(table)
}

/// What the most instructions a page are spent in, up to `most` functions a guest and way; none if none were counted.
fn functions_table(figures: Figures, most: usize) -> Option<Table> {
    let mut table = new_table(&["", "guest", "", "a page", "of all", "function"], 3);
    if let Some(name) = table.column_mut(5) {
        name.set_cell_alignment(CellAlignment::Left);
    }
    for state in State::ALL {
        for subject in Subject::ALL {
            for way in Way::ALL {
                let functions = figures.functions(state, subject, way);
                for (name, count, share) in functions.into_iter().take(most) {
                    table.add_row([
                        subject.title(),
                        state.title(),
                        way.name(),
                        &number(count),
                        &format!("{:.1} %", share * 1e2),
                        name,
                    ]);
                }
            }
        }
    }
    (table.row_count() > 0).then_some(table)
}

/// Both drivers in User-mode Linux; none if they were not measured.
fn natives(figures: Figures) -> Option<Table> {
    let header = [
        "",
        "kernel",
        "inflate",
        "min - max",
        "faster",
        "deflate",
        "min - max",
        "faster",
    ];
    let mut table = new_table(&header, 2);
    for kernel in UmlKernel::ALL {
        for driver in uml::DRIVERS {
            let mut row = vec![driver.name().to_owned(), kernel.title().to_owned()];
            for way in Way::ALL {
                let time = figures.native(kernel, driver.name(), way)?;
                let stock = figures.native(kernel, Driver::Stock.name(), way)?;
                row.extend(time_cells(Some(time)));
                row.push(format!("{} x", number(stock.median / time.median)));
            }
            table.add_row(row);
        }
    }
    Some(table)
}

fn reach_table(figures: Figures) -> Table {
    let mut table = new_table(&["guest", "measure", "to reach", "measured", ""], 2);
    for row in reach::rows(figures) {
        table.add_row([
            row.guest.to_owned(),
            row.measure.to_owned(),
            aim(row.bound),
            row.measured.map_or(NONE.into(), number),
            match row.is_reached() {
                Some(true) => "yes".into(),
                Some(false) => "NO".into(),
                None => NONE.to_owned(),
            },
        ]);
    }
    table
}

fn aim(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(bound) => format!(">= {}", number(bound)),
        Bound::AtMost(bound) => format!("<= {}", number(bound)),
    }
}

fn median(summary: Option<Summary>) -> String {
    cell(summary, |summary| number(summary.median))
}

fn cell<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or(NONE.into(), show)
}

/// Three digits that count, or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::record;
    use crate::plan::Job;
    use crate::record::{Failure, Record};

    #[test]
    fn the_table_shows_medians_ratios_and_floors() {
        let mut record = record();
        record.failures.push(Failure {
            job: Job::Discard { round: 4 },
            error: "no memory".into(),
        });
        let text = render(Figures(&record), 1);
        let line = |needle: &str| {
            text.lines()
                .find(|line| line.contains(needle))
                .unwrap_or_else(|| panic!("no {needle}: {text}"))
        };
        let ours = line(Subject::OursDaemon.title());
        for cell in ["20.0", "10.0 - 30.0", "200 x", "512", "4.00", "30"] {
            assert!(ours.contains(cell), "{cell}: {ours}");
        }
        assert!(line(Subject::StockQemu.title()).contains("1.00 x"));
        assert!(line("order 9").contains("2.00"));
        let function = line(" free ");
        assert!(
            function.contains("12.0") && function.contains("60.0 %"),
            "{function}"
        );
        assert!(!text.contains(" mark "), "{text}");
        assert!(line("same ranges (3)").contains("15.0"));
        let patched: Vec<_> = text
            .lines()
            .filter(|line| line.contains(UmlKernel::Patched.title()))
            .collect();
        assert_eq!(patched.len(), 2, "{text}");
        assert!(patched[0].contains("1500") && patched[0].contains("1.00 x"));
        assert!(patched[1].contains("30.0") && patched[1].contains("50.0 x"));
        assert!(line("with zeroing").contains("<= 1.10"));
        assert!(line("by PFN arrays").contains(">= 2.00"));
        assert!(text.contains("FAILED: round 4") && text.contains("no memory"));
        assert!(!text.contains(Subject::VirtioMem.title()), "{text}");
    }

    #[test]
    fn of_nothing_only_the_targets_are_shown() {
        let record = Record::default();
        let text = render(Figures(&record), 9);
        assert!(
            !text.contains("Guest idle") && text.contains("Reach"),
            "{text}"
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.123, 9.999, 12.34, 99.96, 1234.5].map(number);
        assert_eq!(shown, ["0.12", "10.0", "12.3", "100", "1234"]);
    }
}
