//! Figures of the results, as SVG.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use crate::row::Row;
use crate::target::TARGETS;

/// Height of a bar and of what is around the bars, and the width of all, in pixels.
const BAR_HEIGHT: u32 = 28;
const FRAME_HEIGHT: u32 = 70;
const WIDTH: u32 = 760;

/// A figure: a bar for each target.
struct Plot {
    file: &'static str,
    title: &'static str,
    figure: fn(&Row) -> f64,
    connections: u32,
    gap_ms: u32,
}

const PLOTS: [Plot; 3] = [
    Plot {
        file: "throughput.svg",
        title: "Answers per second, 16 connections (more is better)",
        figure: |row| row.req_per_s,
        connections: 16,
        gap_ms: 0,
    },
    Plot {
        file: "p99.svg",
        title: "p99 in microseconds, 16 connections (less is better)",
        figure: |row| row.p99_us as f64,
        connections: 16,
        gap_ms: 0,
    },
    Plot {
        file: "idle.svg",
        title: "p50 in microseconds, 16 connections that are idle for 50 ms (less is better)",
        figure: |row| row.p50_us as f64,
        connections: 16,
        gap_ms: 50,
    },
];

/// Writes the figures for which `rows` has the load into `directory`, and says how many there are.
///
/// # Errors
///
/// When the directory or a file cannot be written.
pub fn save(rows: &[Row], directory: &Path) -> Result<usize> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut written = 0;
    for plot in &PLOTS {
        // Sections have rows of their own with the same load.
        let is_target = |row: &&Row| TARGETS.iter().any(|target| target.name == row.name);
        let has_load = |row: &&Row| row.connections == plot.connections && row.gap_ms == plot.gap_ms;
        let rows: Vec<&Row> = rows.iter().filter(is_target).filter(has_load).collect();
        if !rows.is_empty() {
            let path = directory.join(plot.file);
            plot.draw(&rows, &path).with_context(|| format!("cannot write {}", path.display()))?;
            written += 1;
        }
    }
    ensure!(written > 0, "no target was measured under a load that has a figure: leave out --only, or name a target");
    Ok(written)
}

impl Plot {
    fn draw(&self, rows: &[&Row], path: &Path) -> Result<()> {
        let height = FRAME_HEIGHT + BAR_HEIGHT * rows.len() as u32;
        let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let most = rows.iter().map(|row| (self.figure)(row)).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(24)
            .y_label_area_size(190)
            .build_cartesian_2d(0.0..most * 1.15, (0..rows.len() - 1).into_segmented())?;
        // The first row is on top. A range of segments has its end, too.
        let of = |index: usize| rows.iter().rev().nth(index);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(rows.len())
            .y_label_formatter(&|segment| match segment {
                SegmentValue::CenterOf(index) => of(*index).map_or_else(String::new, |row| row.name.to_owned()),
                SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
            })
            .x_label_formatter(&|value| format!("{value:.0}"))
            .label_style(("sans-serif", 13))
            .draw()?;
        for (index, row) in rows.iter().rev().enumerate() {
            let value = (self.figure)(row);
            let colour = if row.name.starts_with("wasmbox") { RGBColor(36, 99, 180) } else { RGBColor(150, 150, 150) };
            let corners = [(0.0, SegmentValue::Exact(index)), (value, SegmentValue::Exact(index + 1))];
            let mut bar = Rectangle::new(corners, colour.filled());
            bar.set_margin(4, 4, 0, 0);
            let label = Text::new(
                format!(" {value:.0}"),
                (value, SegmentValue::CenterOf(index)),
                ("sans-serif", 13).into_font(),
            );
            chart.draw_series([bar])?;
            chart.draw_series([label])?;
        }
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmbox_tests::temporary::TempDir;

    fn row(name: &'static str, req_per_s: f64) -> Row {
        Row {
            name,
            connections: 16,
            gap_ms: 0,
            req_per_s,
            p50_us: 1,
            p99_us: 2,
            cpu_us: 1.0,
            rss_kib: 1,
            errors: 0,
            held: None,
        }
    }

    #[test]
    fn each_target_has_a_bar_with_its_figure() {
        let directory = TempDir::new();
        let rows = [row("hyper", 90_000.0), row("wasmbox-core", 60_000.0), row("wasmbox-core-fresh", 7_000.0)];
        assert_eq!(save(&rows, directory.path()).unwrap(), 2, "two figures have this load");
        let svg = std::fs::read_to_string(directory.path().join("throughput.svg")).unwrap();
        for text in ["hyper", "wasmbox-core", " 90000", " 60000"] {
            assert_eq!(svg.matches(&format!("\n{text}\n")).count(), 1, "{text}: {svg}");
        }
        assert!(!svg.contains("fresh"), "a section's row has the same load");
        assert!(!directory.path().join("idle.svg").exists());
    }

    #[test]
    fn no_figure_is_an_error() {
        let directory = TempDir::new();
        assert!(save(&[], directory.path()).is_err());
    }
}
