//! Pictures of several contenders: what `cargo xtask bench-compare` has measured, and the page of
//! benchmarks shows.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Deserialize;

use crate::plot::{self, Curve, FONT, LINE, Picture, TEXT, TITLE};
use crate::report::grouped;
use crate::theme::{self, COLORS, INK, LIGHT_GRID, PAPER, SMALL};

/// What is drawn, as bench-compare writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Contenders {
    /// On what, and when.
    lines: Vec<String>,
    /// The names of the contenders, whom the rest calls by their place here.
    contenders: Vec<String>,
    cases: Vec<Case>,
    curves: Vec<Sweep>,
}

#[derive(Debug, Deserialize)]
struct Case {
    title: String,
    bars: Vec<Bar>,
}

#[derive(Debug, Deserialize)]
struct Bar {
    contender: usize,
    /// What stands beside the figure: the threads, say.
    name: String,
    calls_per_second: f64,
    cpu_us_per_call: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Sweep {
    contender: usize,
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    in_flight: usize,
    calls_per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

const WIDTH: u32 = 1200;
/// The height of a bar, and of what a case has besides.
const BAR: u32 = 26;
const CASE: u32 = 100;

/// The colours of the contenders.
fn color(contender: usize) -> RGBColor {
    [COLORS[1], COLORS[2], COLORS[0]][contender % 3]
}

impl Contenders {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
        let read: Self =
            serde_json::from_str(&text).with_context(|| format!("{shown} is no such picture"))?;
        let bars = read.cases.iter().flat_map(|case| &case.bars);
        let bars = bars.map(|bar| bar.contender);
        let all = bars.chain(read.curves.iter().map(|curve| curve.contender));
        if read.contenders.len() > 3 || all.max() >= Some(read.contenders.len()) {
            bail!("{shown} has contenders without a name, or more than three");
        }
        if read.cases.is_empty() || read.curves.iter().all(|curve| curve.points.is_empty()) {
            bail!("{shown} has nothing to draw");
        }
        Ok(read)
    }

    /// Calls per second and CPU per call of each contender, side by side.
    pub(crate) fn draw_cost(&self, path: &Path) -> Result<()> {
        let head = 76 + LINE * self.lines.len() as u32 + 30;
        let height = |case: &Case| CASE + BAR * case.bars.len() as u32;
        let size = (
            WIDTH,
            head + self.cases.iter().map(height).sum::<u32>() + 10,
        );
        write(path, size, |area| {
            let (top, mut rest) = area.split_vertically(head);
            self.draw_head(&top)?;
            for case in &self.cases {
                let (area, below) = rest.split_vertically(height(case));
                case.draw(&area)?;
                rest = below;
            }
            Ok(())
        })
    }

    fn draw_head<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let title = (FONT, TITLE).into_font().style(FontStyle::Bold).color(&INK);
        let text = "Calls per second, and CPU per call";
        area.draw_text(text, &title, (20, 14))?;
        let small = (FONT, TEXT).into_font().color(&SMALL);
        let mut y = 48;
        for line in &self.lines {
            area.draw_text(line, &small, (20, y))?;
            y += LINE as i32;
        }
        y += 14;
        let font = (FONT, TEXT).into_font().color(&INK);
        let mut x = 24;
        for (contender, name) in self.contenders.iter().enumerate() {
            let color = color(contender).filled();
            area.draw(&Rectangle::new([(x, y), (x + 22, y + TEXT as i32)], color))?;
            area.draw_text(name, &font, (x + 30, y))?;
            let (width, _) = area.estimate_text_size(name, &font)?;
            x += 30 + width as i32 + 32;
        }
        Ok(())
    }

    /// Latency over throughput of each contender, under rising loads.
    pub(crate) fn draw_latency(&self, path: &Path) -> Result<()> {
        let mut curves = Vec::new();
        for sweep in &self.curves {
            let name = &self.contenders[sweep.contender];
            let of = |latency: fn(&Point) -> f64| {
                let points = sweep.points.iter();
                points
                    .map(|point| {
                        let load = point.in_flight.to_string();
                        (point.calls_per_second, latency(point), load)
                    })
                    .collect()
            };
            let curve = |percentile, width, labelled, points| Curve {
                name: format!("{name}, {percentile}"),
                color: color(sweep.contender),
                width,
                points,
                labelled,
            };
            curves.push(curve("p50", 3, true, of(|point| point.p50_us)));
            curves.push(curve("p99", 1, false, of(|point| point.p99_us)));
        }
        let picture = Picture {
            title: "Latency over throughput, by calls in flight".to_owned(),
            lines: self.lines.clone(),
            curves,
            logarithmic: true,
        };
        write(path, plot::SIZE, |area| picture.draw(area))
    }
}

impl Case {
    /// A chart on the left and one on the right, each with a scale of its own.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let bold = (FONT, TEXT + 1).into_font().style(FontStyle::Bold);
        area.draw_text(&self.title, &bold.color(&INK), (20, 6))?;
        let (above, _) = area.split_vertically(CASE - 12 + BAR * self.bars.len() as u32);
        let (_, charts) = above.split_vertically(26);
        let (left, right) = charts.split_horizontally(WIDTH / 2);
        self.draw_bars(&left, "calls per second", |bar| {
            let rate = bar.calls_per_second;
            Some((rate, grouped(rate.round())))
        })?;
        self.draw_bars(&right, "µs of the processor per call", |bar| {
            let micros = bar.cpu_us_per_call?;
            Some((micros, format!("{micros:.2}")))
        })
    }

    fn draw_bars<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        title: &str,
        figure: impl Fn(&Bar) -> Option<(f64, String)>,
    ) -> Drawn<B> {
        let figures: Vec<_> = self.bars.iter().map(figure).collect();
        let known = figures.iter().flatten().map(|(figure, _)| *figure);
        let most = known.fold(f64::MIN_POSITIVE, f64::max);
        let count = self.bars.len() as f64;
        // To the right there is room for the figure of the longest bar.
        let mut chart = ChartBuilder::on(area)
            .margin_left(20)
            .margin_right(20)
            .x_label_area_size(44)
            .build_cartesian_2d(0.0..most * 1.45, 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(title)
            .x_labels(6)
            .x_label_formatter(&|figure| grouped(*figure))
            .label_style((FONT, TEXT - 2).into_font().color(&SMALL))
            .axis_desc_style((FONT, TEXT - 1).into_font().color(&INK))
            .axis_style(SMALL)
            .bold_line_style(LIGHT_GRID)
            .light_line_style(PAPER)
            .draw()?;
        let text = (FONT, TEXT - 1).into_font().color(&INK);
        let text = text.pos(Pos::new(HPos::Left, VPos::Center));
        for (number, (bar, figure)) in self.bars.iter().zip(figures).enumerate() {
            // The first is at the top.
            let (low, high) = (count - number as f64 - 0.88, count - number as f64 - 0.12);
            let (end, mut label) = figure.unwrap_or((0.0, "not known".to_owned()));
            if !bar.name.is_empty() {
                label = format!("{label}  ({})", bar.name);
            }
            let color = color(bar.contender).filled();
            let middle = f64::midpoint(low, high);
            chart.draw_series([Rectangle::new([(0.0, low), (end, high)], color)])?;
            chart.draw_series([
                EmptyElement::at((end, middle)) + Text::new(label, (6, 0), text.clone())
            ])?;
        }
        Ok(())
    }
}

type Area<B> = DrawingArea<B, Shift>;
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Draws into a file, for a light page and for a dark one.
fn write<'a>(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Area<SVGBackend<'_>>) -> Drawn<SVGBackend<'a>>,
) -> Result<()> {
    plot::register_fonts()?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&PAPER)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present())
            .map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
    }
    let written = || format!("writing {}", path.display());
    fs::write(path, theme::for_both(&svg)).with_context(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::theme::tests::assert_follows_the_page;

    const DATA: &str = r#"{
        "lines": ["a machine", "ours 1.0"],
        "contenders": ["the Go library", "by hand on tonic", "this library"],
        "cases": [
            {"title": "one process, 100 in flight", "bars": [
                {"contender": 0, "name": "", "calls_per_second": 1000.4, "cpu_us_per_call": 50},
                {"contender": 2, "name": "1 + 1 threads", "calls_per_second": 8000, "cpu_us_per_call": null}]},
            {"title": "processes", "bars": [
                {"contender": 1, "name": "", "calls_per_second": 2000, "cpu_us_per_call": 4.256}]}],
        "curves": [
            {"contender": 0, "points": [
                {"in_flight": 1, "calls_per_second": 100, "p50_us": 90, "p99_us": 200},
                {"in_flight": 1000, "calls_per_second": 1000, "p50_us": 3000, "p99_us": 9000}]},
            {"contender": 2, "points": [
                {"in_flight": 1, "calls_per_second": 700, "p50_us": 30, "p99_us": 80}]}]}"#;

    fn with(text: &str, draw: impl FnOnce(&Contenders, &Path) -> Result<()>) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data.json");
        fs::write(&data, text)?;
        let out = folder.path().join("picture.svg");
        draw(&Contenders::read(&data)?, &out)?;
        Ok(fs::read_to_string(out)?)
    }

    #[test]
    fn bars_have_their_figures_axes_their_units_and_colours_their_names() {
        let svg = with(DATA, Contenders::draw_cost).expect("draws");
        for part in [
            "a machine",
            "ours 1.0",
            "the Go library",
            "by hand on tonic",
            "this library",
            "one process, 100 in flight",
            "1,000",
            "50.00",
            "8,000  (1 + 1 threads)",
            "not known  (1 + 1 threads)",
            "4.26",
        ] {
            assert!(svg.contains(part), "{part:?} is missing: {svg}");
        }
        for title in ["calls per second", "µs of the processor per call"] {
            assert_eq!(svg.matches(title).count(), 2, "{title}");
        }
        assert_follows_the_page(&svg);
    }

    #[test]
    fn curves_have_two_percentiles_and_their_loads() {
        let svg = with(DATA, Contenders::draw_latency).expect("draws");
        for part in [
            "the Go library, p50",
            "this library, p99",
            "calls per second",
            "latency",
            "logarithmic",
            ">\n1000\n<",
        ] {
            assert!(svg.contains(part), "{part:?} is missing: {svg}");
        }
        assert!(!svg.contains("tonic"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2 * 3);
        assert_follows_the_page(&svg);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        for (text, part) in [
            ("{}", "no such picture"),
            (
                &DATA.replace("\"contender\": 2", "\"contender\": 3"),
                "without a name",
            ),
            (
                &DATA.replace("\"cases\"", "\"cases\": [], \"others\""),
                "nothing to draw",
            ),
        ] {
            let error = with(text, Contenders::draw_cost).expect_err("it is wrong");
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}
