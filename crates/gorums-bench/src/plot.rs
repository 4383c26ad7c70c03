//! Pictures: latency over throughput.

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Once;

use anyhow::{Context, Result, anyhow, bail};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::latency::Summary;
use crate::report::{Measured, Report, grouped};
use crate::theme::{self, BOLD_GRID, COLORS, INK, LIGHT_GRID, PAPER, SMALL};

pub(crate) const SIZE: (u32, u32) = (1200, 760);
pub(crate) const FONT: &str = "sans-serif";
pub(crate) const TITLE: u32 = 24;
pub(crate) const TEXT: u32 = 15;
/// Lines of small text below the title.
pub(crate) const LINE: u32 = 20;
/// The height of the line that names the curves.
const LEGEND: i32 = 28;

/// More runs in one picture cannot be told apart.
pub(crate) const MOST_RUNS: usize = COLORS.len();

/// Draws sweeps into `out.svg` and `out.png`. One sweep has its 50th, 99th and 99.9th percentile;
/// several have the 50th and the 99th each.
pub(crate) fn draw(reports: &[Report], out: &Path) -> Result<()> {
    let picture = Picture::of(reports)?;
    register_fonts()?;
    let svg = out.with_added_extension_of("svg");
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, SIZE).into_drawing_area();
        picture
            .draw(&area)
            .map_err(|error| anyhow!("drawing {}: {error}", svg.display()))?;
    }
    fs::write(&svg, theme::for_both(&drawn))
        .with_context(|| format!("writing {}", svg.display()))?;
    let png = out.with_added_extension_of("png");
    let (width, height) = SIZE;
    let mut pixels = vec![0; width as usize * height as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        picture
            .draw(&area)
            .map_err(|error| anyhow!("drawing {}: {error}", png.display()))?;
    }
    let written = || format!("writing {}", png.display());
    let file = fs::File::create(&png).with_context(written)?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().with_context(written)?;
    writer.write_image_data(&pixels).with_context(written)?;
    writer.finish().with_context(written)
}

/// A name with an extension behind whatever it ends with.
pub(crate) trait WithExtension {
    fn with_added_extension_of(&self, extension: &str) -> std::path::PathBuf;
}

impl WithExtension for Path {
    fn with_added_extension_of(&self, extension: &str) -> std::path::PathBuf {
        let mut name = self.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        name.into()
    }
}

/// The font comes with the program, so that pictures look the same on every machine.
pub(crate) fn register_fonts() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        for (style, bytes) in [
            (FontStyle::Normal, dejavu::sans::regular()),
            (FontStyle::Bold, dejavu::sans::bold()),
        ] {
            if register_font(FONT, style, bytes).is_err() {
                result = Err(anyhow!(
                    "the font that comes with the program cannot be read"
                ));
            }
        }
    });
    result
}

pub(crate) struct Picture {
    pub(crate) title: String,
    /// On what, and what.
    pub(crate) lines: Vec<String>,
    pub(crate) curves: Vec<Curve>,
    /// Whether the scale of the throughput is logarithmic. That of the latency always is.
    pub(crate) logarithmic: bool,
}

pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    /// How far it is from what most callers see: those are thicker.
    pub(crate) width: u32,
    /// Calls per second, microseconds, and the load.
    pub(crate) points: Vec<(f64, f64, String)>,
    /// Whether the loads are written beside the points: where there are several percentiles, beside
    /// those of one.
    pub(crate) labelled: bool,
}

type Percentile = (&'static str, fn(&Summary) -> f64);

const P50: Percentile = ("p50", |latency| latency.p50);
const P99: Percentile = ("p99", |latency| latency.p99);
const P99_9: Percentile = ("p99.9", |latency| latency.p99_9);

impl Picture {
    fn of(reports: &[Report]) -> Result<Self> {
        if reports.len() > MOST_RUNS {
            bail!(
                "{} runs: more than {MOST_RUNS} in one picture cannot be told apart",
                reports.len()
            );
        }
        let mut picture = Self {
            title: String::new(),
            lines: Vec::new(),
            curves: Vec::new(),
            logarithmic: false,
        };
        for (number, report) in reports.iter().enumerate() {
            let Some(first) = report.results.first() else {
                bail!("run {} has no results", number + 1);
            };
            if picture.title.is_empty() {
                picture.title = format!("{}: latency over throughput", first.benchmark);
            } else if !picture.title.starts_with(&format!("{}:", first.benchmark)) {
                picture.title = "Latency over throughput".to_owned();
            }
            let name = report.label.clone().unwrap_or_else(|| {
                if reports.len() == 1 {
                    String::new()
                } else {
                    format!("run {}", number + 1)
                }
            });
            picture.describe(report, first, &name);
            if reports.len() == 1 {
                for (at, percentile) in [P50, P99, P99_9].into_iter().enumerate() {
                    picture.add(report, percentile, percentile.0, COLORS[at], 2, at == 0);
                }
            } else {
                let color = COLORS[number];
                picture.add(report, P50, &format!("{name}, p50"), color, 3, false);
                picture.add(report, P99, &format!("{name}, p99"), color, 1, false);
            }
        }
        Ok(picture)
    }

    fn describe(&mut self, report: &Report, first: &Measured, name: &str) {
        let busy = if report.results.iter().any(|step| step.busy) {
            "; THE MACHINE WAS BUSY"
        } else {
            ""
        };
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("{name}: ")
        };
        self.lines.push(format!("{name}{}{busy}", first.setting()));
        let versions = report.versions.line();
        self.lines.push(format!(
            "{}; {versions}; {}",
            report.machine.line(),
            report.date
        ));
    }

    fn add(
        &mut self,
        report: &Report,
        (_, latency): Percentile,
        name: &str,
        color: RGBColor,
        width: u32,
        labelled: bool,
    ) {
        let points = report.results.iter().map(|step| {
            let load = match step.rate {
                None => step.in_flight.to_string(),
                Some(rate) => format!("{}/s", grouped(rate)),
            };
            (step.calls_per_second, latency(&step.latency_us), load)
        });
        self.curves.push(Curve {
            name: name.to_owned(),
            color,
            width,
            points: points.collect(),
            labelled,
        });
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64, String)> {
        self.curves.iter().flat_map(|curve| &curve.points)
    }

    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&PAPER)?;
        let small = (FONT, TEXT).into_font().color(&SMALL);
        let title = (FONT, TITLE).into_font().style(FontStyle::Bold).color(&INK);
        area.draw_text(&self.title, &title, (20, 14))?;
        let mut y = 48;
        for line in &self.lines {
            area.draw_text(line, &small, (20, y))?;
            y += LINE as i32;
        }
        y += LEGEND / 2;
        self.draw_legend(area, y)?;
        let (_, chart) = area.split_vertically(y + LEGEND);

        let rates = || self.points().map(|point| point.0);
        let most = rates().fold(1.0, f64::max);
        if self.logarithmic {
            let least = rates().fold(most, f64::min);
            self.draw_chart(&chart, (least / 1.5..most * 1.8).log_scale())?;
        } else {
            self.draw_chart(&chart, 0.0..most * 1.06)?;
        }
        area.present()
    }

    fn draw_chart<B: DrawingBackend, X: AsRangedCoord<Value = f64>>(
        &self,
        area: &DrawingArea<B, Shift>,
        rates: X,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>
    where
        X::CoordDescType: ValueFormatter<f64>,
    {
        let lowest = self
            .points()
            .map(|point| point.1)
            .fold(f64::INFINITY, f64::min);
        let highest = self.points().map(|point| point.1).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(20)
            // The last number of the axis is half beyond it.
            .margin_right(50)
            .x_label_area_size(46)
            .y_label_area_size(86)
            .build_cartesian_2d(rates, (lowest / 1.4..highest * 1.6).log_scale())?;
        let mut below = "calls per second".to_owned();
        if self.logarithmic {
            below += ", logarithmic";
        }
        if self.curves.iter().any(|curve| curve.labelled) {
            below += " (beside the points: the load)";
        }
        chart
            .configure_mesh()
            .x_desc(below)
            .y_desc("latency (logarithmic)")
            .x_label_formatter(&|rate| grouped(*rate))
            .y_label_formatter(&|micros| time(*micros))
            .label_style((FONT, TEXT))
            .axis_desc_style((FONT, TEXT + 1))
            .light_line_style(LIGHT_GRID)
            .bold_line_style(BOLD_GRID)
            .draw()?;
        for curve in &self.curves {
            let style = curve.color.stroke_width(curve.width);
            let line = curve
                .points
                .iter()
                .map(|(rate, micros, _)| (*rate, *micros));
            chart.draw_series(LineSeries::new(line.clone(), style))?;
            chart.draw_series(
                line.map(|at| Circle::new(at, 2 + curve.width, curve.color.filled())),
            )?;
            if curve.labelled {
                let small = (FONT, TEXT - 2).into_font().color(&curve.color);
                chart.draw_series(curve.points.iter().map(|(rate, micros, load)| {
                    EmptyElement::at((*rate, *micros)) + Text::new(load.clone(), (7, 5), &small)
                }))?;
            }
        }
        Ok(())
    }
}

impl Picture {
    /// In a line of its own, where no curve can be behind it.
    fn draw_legend<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        y: i32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let font = (FONT, TEXT).into_font().color(&INK);
        let mut x = 24;
        for curve in &self.curves {
            let style = curve.color.stroke_width(curve.width);
            let middle = y + TEXT as i32 / 2;
            area.draw(&PathElement::new([(x, middle), (x + 28, middle)], style))?;
            area.draw_text(&curve.name, &font, (x + 36, y))?;
            let (width, _) = area.estimate_text_size(&curve.name, &font)?;
            x += 36 + width as i32 + 28;
        }
        Ok(())
    }
}

/// With the unit that people would use.
fn time(micros: f64) -> String {
    let (number, unit) = if micros < 999.5 {
        (micros, "µs")
    } else if micros < 999_500.0 {
        (micros / 1e3, "ms")
    } else {
        (micros / 1e6, "s")
    };
    // As many digits as the axis needs.
    if number < 9.95 && (number - number.round()).abs() > 0.04 {
        format!("{number:.1} {unit}")
    } else {
        format!("{number:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{measured, report};

    fn sweep(label: Option<&str>) -> Report {
        let steps = [
            (1, 20_000.0, 40.0),
            (10, 150_000.0, 60.0),
            (100, 400_000.0, 250.0),
        ];
        let mut report = report(Vec::new());
        report.label = label.map(str::to_owned);
        for (in_flight, rate, p50) in steps {
            let mut step = measured();
            step.in_flight = in_flight;
            step.calls_per_second = rate;
            step.latency_us.p50 = p50;
            step.latency_us.p99 = 3.0 * p50;
            step.latency_us.p99_9 = 9.0 * p50;
            report.results.push(step);
        }
        report
    }

    fn drawn(reports: &[Report]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("picture");
        draw(reports, &out).expect("draws");
        let png = fs::read(out.with_added_extension_of("png")).expect("a picture");
        let info = png::Decoder::new(std::io::Cursor::new(png)).read_info();
        let info = info.expect("a PNG picture").info().clone();
        assert_eq!((info.width, info.height), SIZE);
        fs::read_to_string(out.with_added_extension_of("svg")).expect("a picture")
    }

    #[test]
    fn a_picture_names_the_machine_the_versions_and_the_percentiles() {
        let report = sweep(None);
        let svg = drawn(std::slice::from_ref(&report));
        let (machine, rustc) = (&report.machine.cpu, &report.versions.rustc);
        for part in [
            "latency over throughput",
            "p50",
            "p99.9",
            "calls per second",
            machine,
            rustc,
        ] {
            assert!(svg.contains(part), "{part:?} is missing");
        }
        crate::theme::tests::assert_follows_the_page(&svg);
        assert_eq!(
            svg.matches("<circle").count(),
            9,
            "a point for each percentile of each step"
        );
    }

    #[test]
    fn runs_lie_over_one_another() {
        let svg = drawn(&[sweep(Some("before")), sweep(Some("after"))]);
        for part in ["before, p50", "after, p99"] {
            assert!(svg.contains(part), "{part:?} is missing");
        }
        assert_eq!(svg.matches("<circle").count(), 12);
    }

    #[test]
    fn a_busy_machine_is_named() {
        let mut report = sweep(None);
        report.results[1].busy = true;
        assert!(drawn(&[report]).contains("THE MACHINE WAS BUSY"));
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let out = Path::new("never written");
        assert!(draw(&[report(Vec::new())], out).is_err());
        assert!(draw(&vec![sweep(None); MOST_RUNS + 1], out).is_err());
    }

    #[test]
    fn times_have_the_unit_that_people_use() {
        for (micros, text) in [
            (0.5, "0.5 µs"),
            (40.0, "40 µs"),
            (1000.0, "1 ms"),
            (2500.0, "2.5 ms"),
            (3e6, "3 s"),
        ] {
            assert_eq!(time(micros), text);
        }
    }
}
