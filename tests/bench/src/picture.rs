// SPDX-License-Identifier: GPL-2.0-only

//! The picture: time per GiB of all subjects, beside the floors.

use std::path::Path;

use anyhow::{anyhow, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figures::{Case, Figures};
use crate::plan::{State, Subject, Zeroing};
use crate::record::Way;
use crate::statistics::Summary;
use crate::table::{floors, number};

const WIDTH: u32 = 1660;
const ROW: u32 = 34;
/// Above and below the rows of a panel.
const MARGIN: u32 = 90;
const HEAD: u32 = 70;
/// Left of a panel's axis.
const NAMES: i32 = 310;
const INFLATE: RGBColor = RGBColor(0xb4, 0x3c, 0x2c);
const DEFLATE: RGBColor = RGBColor(0x2c, 0x5c, 0x9c);
const FLOOR: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// A line of a panel: a name, and the time each way.
struct Line {
    name: String,
    is_floor: bool,
    times: [Option<Summary>; 2],
}

/// One guest.
struct Panel {
    title: String,
    lines: Vec<Line>,
}

/// Draws all guests that were measured, idle ones first.
pub fn draw(figures: Figures, path: &Path) -> Result<()> {
    let rows: Vec<[Panel; 2]> = State::ALL
        .map(|state| Zeroing::ALL.map(|zeroing| panel(figures, zeroing, state)))
        .into_iter()
        .filter(|row| row.iter().any(|panel| !panel.lines.is_empty()))
        .collect();
    let height = |row: &[Panel; 2]| {
        let lines = row.iter().map(|panel| panel.lines.len()).max().unwrap_or(0);
        lines as u32 * ROW + MARGIN
    };
    let total = HEAD + rows.iter().map(height).sum::<u32>();
    paint(figures, &rows, height, (WIDTH, total), path).map_err(|error| anyhow!("{error}"))
}

fn panel(figures: Figures, zeroing: Zeroing, state: State) -> Panel {
    let mut lines: Vec<Line> = Subject::ALL
        .into_iter()
        .map(|subject| Line {
            name: subject.title().into(),
            is_floor: false,
            times: Way::ALL.map(|way| {
                figures.time(Case {
                    zeroing,
                    state,
                    subject,
                    way,
                })
            }),
        })
        .filter(|line| line.times.iter().any(Option::is_some))
        .collect();
    if !lines.is_empty() {
        lines.extend(floors(figures, zeroing, state).into_iter().map(
            |(name, inflate, deflate)| Line {
                name,
                is_floor: true,
                times: [inflate, deflate],
            },
        ));
    }
    Panel {
        title: format!("guest {}, {}", state.title(), zeroing.title()),
        lines,
    }
}

fn paint(
    figures: Figures,
    rows: &[[Panel; 2]],
    height: impl Fn(&[Panel; 2]) -> u32,
    size: (u32, u32),
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let about = &figures.0.about;
    let head = ("sans-serif", 26).into_font();
    root.draw(&Text::new(
        "Milliseconds per GiB (median; bars from the least to the most)",
        (20, 12),
        head,
    ))?;
    let small = ("sans-serif", 18).into_font();
    let place = format!(
        "{} MiB of {} MiB, {}, {} x {}, guest Linux {}, QEMU {}, {}",
        about.moved_mib,
        about.guest_mib,
        about.accelerator,
        about.processors,
        about.processor,
        about.guest_kernel,
        about.qemu,
        about.date
    );
    root.draw(&Text::new(place, (20, 42), small.clone()))?;
    for (at, (name, color)) in [("inflate", INFLATE), ("deflate", DEFLATE)]
        .into_iter()
        .enumerate()
    {
        let x = WIDTH as i32 - 200 + at as i32 * 100;
        root.draw(&Circle::new((x, 22), 5, color.filled()))?;
        root.draw(&Text::new(name, (x + 10, 14), small.clone()))?;
    }

    let bounds = bounds(rows);
    let mut rest = root.margin(HEAD, 0, 0, 0);
    for row in rows {
        let (area, below) = rest.split_vertically(height(row));
        rest = below;
        let (left, right) = area.split_horizontally(WIDTH / 2);
        paint_panel(&left, &row[0], bounds)?;
        paint_panel(&right, &row[1], bounds)?;
    }
    root.present()?;
    Ok(())
}

/// Powers of ten around all times, the same for all panels.
fn bounds(rows: &[[Panel; 2]]) -> (f64, f64) {
    let times = || {
        rows.iter()
            .flatten()
            .flat_map(|panel| &panel.lines)
            .flat_map(|line| line.times.iter().flatten())
    };
    let least = times().map(|time| time.min).fold(f64::INFINITY, f64::min);
    let most = times().map(|time| time.max).fold(0.0, f64::max);
    if most <= 0.0 {
        return (1.0, 10.0);
    }
    let low = 10f64.powf(least.max(1e-6).log10().floor());
    // Room for the figure beside the last mark.
    let high = 10f64.powf((most * 2.0).log10().ceil());
    (low, high.max(low * 10.0))
}

fn paint_panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    panel: &Panel,
    (low, high): (f64, f64),
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    if panel.lines.is_empty() {
        return Ok(());
    }
    let count = panel.lines.len();
    // The first line is on top.
    let middle = |line: usize| (count - line) as f64 - 0.5;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 22))
        .margin_right(20)
        .margin_top(10)
        .margin_left(NAMES)
        .x_label_area_size(30)
        .build_cartesian_2d((low..high).log_scale(), 0.0..count as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_style(("sans-serif", 16))
        .x_label_formatter(&|x| format!("{x}"))
        .draw()?;
    for (line, shown) in panel.lines.iter().enumerate() {
        let name = Text::new(shown.name.clone(), (5 - NAMES, -7), ("sans-serif", 17));
        chart.draw_series([EmptyElement::at((low, middle(line))) + name])?;
        let below = [(low, middle(line) - 0.5), (high, middle(line) - 0.5)];
        chart.draw_series([PathElement::new(below, BLACK.mix(0.15))])?;
        for ((time, color), offset) in shown.times.iter().zip([INFLATE, DEFLATE]).zip([0.2, -0.2]) {
            let Some(time) = time else {
                continue;
            };
            let y = middle(line) + offset;
            let bar = if shown.is_floor { FLOOR } else { color };
            let ends = vec![(time.min, y), (time.max, y)];
            chart.draw_series([PathElement::new(ends, bar.stroke_width(3))])?;
            let style = if shown.is_floor {
                color.stroke_width(2)
            } else {
                color.filled()
            };
            let label = Text::new(number(time.median), (8, -7), ("sans-serif", 15));
            chart.draw_series([
                EmptyElement::at((time.median, y)) + Circle::new((0, 0), 4, style)
            ])?;
            chart.draw_series([EmptyElement::at((time.max, y)) + label])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::record;
    use crate::record::Record;

    #[test]
    fn the_picture_names_what_was_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bench.svg");
        draw(Figures(&record()), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for wanted in [
            Subject::OursDaemon.title(),
            "guest scattered, init_on_alloc=0",
            "floor: allocator, order 9",
            "20.0",
            "4000",
        ] {
            assert!(
                text.contains(&wanted.replace('\'', "&apos;")) || text.contains(wanted),
                "{wanted}"
            );
        }
        assert!(!text.contains("virtio_mem"));
        draw(Figures(&Record::default()), &path).unwrap();
    }
}
