//! Load and capacity over the share of reads, as a picture.
//!
//! It is written by hand, as two curves are worth no font and no drawing library in a crate that others
//! build.

use std::fmt::{self, Write};

use crate::report::{Point, figure};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 440.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 60.0;
const LEFT: f64 = 84.0;
const GAP: f64 = 96.0;
const RIGHT: f64 = 36.0;

/// Each colour, and what it is on a dark page. They are those of the benchmarks' pictures.
const COLOURS: [(&str, &str); 6] = [
    (PAPER, "#0D1117"),
    (INK, "#E6EDF3"),
    (SMALL, "#9DA7B3"),
    (GRID, "#30363D"),
    (BEST, "#58A6E0"),
    (TOLD, "#F0883E"),
];
const PAPER: &str = "#FFFFFF";
const INK: &str = "#000000";
const SMALL: &str = "#464646";
const GRID: &str = "#D7D7D7";
const BEST: &str = "#0072B2";
const TOLD: &str = "#D55E00";

/// Draws the curves of a system. `told` says of which strategy the second ones are.
pub(crate) fn draw(title: &str, told: &str, points: &[Point]) -> String {
    let mut svg = String::new();
    // A string takes everything.
    let _ = write(&mut svg, title, told, points);
    svg
}

fn write(svg: &mut String, title: &str, told: &str, points: &[Point]) -> fmt::Result {
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"14\">"
    )?;
    writeln!(svg, "<style>@media (prefers-color-scheme: dark) {{")?;
    for (light, dark) in COLOURS {
        writeln!(
            svg,
            "[fill=\"{light}\"] {{ fill: {dark} }} [stroke=\"{light}\"] {{ stroke: {dark} }}"
        )?;
    }
    writeln!(svg, "}}</style>")?;
    writeln!(
        svg,
        "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"{PAPER}\"/>"
    )?;
    writeln!(
        svg,
        "<text x=\"20\" y=\"32\" font-size=\"18\" font-weight=\"bold\" fill=\"{INK}\">{}</text>",
        escaped(&shortened(title))
    )?;
    let width = (WIDTH - LEFT - GAP - RIGHT) / 2.0;
    for (at, (what, of)) in ["load", "capacity"].into_iter().zip([0, 1]).enumerate() {
        let left = LEFT + at as f64 * (width + GAP);
        Panel {
            left,
            width,
            what,
            of,
            points,
        }
        .write(svg)?;
    }
    let names = [
        (
            BEST,
            "the least load for each share of reads".to_owned(),
            "",
        ),
        (TOLD, told.to_owned(), DASHES),
    ];
    let mut x = 20.0;
    for (colour, name, dashes) in names {
        writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"58\" x2=\"{}\" y2=\"58\" stroke=\"{colour}\" stroke-width=\"3\"{dashes}/>",
            x + 28.0
        )?;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"63\" fill=\"{INK}\">{}</text>",
            x + 36.0,
            escaped(&shortened(&name))
        )?;
        x += 36.0 + name.chars().count() as f64 * 8.0 + 24.0;
    }
    writeln!(svg, "</svg>")
}

/// The second curve lies on the first one in places.
const DASHES: &str = " stroke-dasharray=\"7 5\"";

/// A chart of one of the two figures.
struct Panel<'a> {
    left: f64,
    width: f64,
    what: &'static str,
    of: usize,
    points: &'a [Point],
}

impl Panel<'_> {
    fn write(&self, svg: &mut String) -> fmt::Result {
        let (left, bottom) = (self.left, HEIGHT - BOTTOM);
        let right = left + self.width;
        let figures = self
            .points
            .iter()
            .flat_map(|point| [point.best[self.of], point.told[self.of]]);
        let step = step(figures.fold(0.0, f64::max));
        let most = STEPS * step;
        let x = |share: f64| left + share * self.width;
        let y = |figure: f64| bottom - figure / most * (bottom - TOP);
        for at in 0..=STEPS as u32 {
            let figure_at = f64::from(at) * step;
            let y = y(figure_at);
            writeln!(
                svg,
                "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>"
            )?;
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{SMALL}\">{}</text>",
                left - 8.0,
                y + 5.0,
                figure(figure_at)
            )?;
        }
        for percent in [0, 25, 50, 75, 100] {
            let x = x(f64::from(percent) / 100.0);
            writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{GRID}\"/>"
            )?;
            writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{SMALL}\">{percent} %</text>",
                bottom + 20.0
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{INK}\">{} over the share of reads</text>",
            left + self.width / 2.0,
            bottom + 44.0,
            self.what
        )?;
        let curve = |svg: &mut String, colour: &str, dashes: &str, of: fn(&Point) -> [f64; 2]| {
            let at = self
                .points
                .iter()
                .map(|point| (point.share, of(point)[self.of]));
            let at = at.map(|(share, figure)| format!("{:.1},{:.1}", x(share), y(figure)));
            let at: Vec<_> = at.collect();
            writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"3\"{dashes}/>",
                at.join(" ")
            )
        };
        curve(svg, BEST, "", |point| point.best)?;
        curve(svg, TOLD, DASHES, |point| point.told)
    }
}

/// So many steps has the axis of a figure.
const STEPS: f64 = 5.0;

/// A round number, so many of which are as much as the greatest figure.
fn step(most: f64) -> f64 {
    let least = most.max(f64::MIN_POSITIVE) / STEPS;
    let unit = 10f64.powf(least.log10().floor());
    let round = [1.0, 2.0, 2.5, 5.0, 10.0].map(|round| round * unit);
    // A figure that is as round may be a little off.
    let found = round
        .into_iter()
        .find(|round| *round >= least * (1.0 - 1e-6));
    found.unwrap_or(10.0 * unit)
}

fn shortened(title: &str) -> String {
    /// There is room for so many characters.
    const MOST: usize = 80;
    match title.char_indices().nth(MOST) {
        None => title.to_owned(),
        Some((end, _)) => format!("{}…", &title[..end]),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Point> {
        let points = [(0.0, 0.5), (0.5, 0.4), (1.0, 0.25)].into_iter();
        let points = points.map(|(share, load)| Point {
            share,
            best: [load, 1.0 / load],
            told: [0.5, 2.0],
        });
        points.collect()
    }

    #[test]
    fn both_figures_have_both_curves_within_the_picture() {
        let svg = draw("a & b < c", "this one", &points());
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(svg.contains("a &amp; b &lt; c") && svg.contains("this one"));
        for line in svg
            .lines()
            .filter_map(|line| line.strip_prefix("<polyline points=\""))
        {
            let (at, _) = line.split_once('"').expect("it ends");
            for at in at.split(' ') {
                let (x, y) = at.split_once(',').expect("x and y");
                let [x, y] = [x, y].map(|number| number.parse::<f64>().expect("a number"));
                assert!(
                    (LEFT..WIDTH).contains(&x) && (TOP..HEIGHT).contains(&y),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn each_colour_has_its_own_on_a_dark_page() {
        let svg = draw("any", "one", &points());
        let (_, drawing) = svg.split_once("</style>").expect("it has a style sheet");
        for attribute in ["fill=\"#", "stroke=\"#"] {
            for rest in drawing.split(attribute).skip(1) {
                let colour = format!("#{}", &rest[..6]);
                assert!(
                    COLOURS.iter().any(|(light, _)| *light == colour),
                    "{colour}"
                );
            }
        }
    }

    #[test]
    fn axes_have_round_steps() {
        for (most, round) in [
            (1.0, 0.2),
            (0.375, 0.1),
            (2667.0, 1000.0),
            (2400.0, 500.0),
            (12.0, 2.5),
        ] {
            assert!((step(most) - round).abs() < 1e-9 * round, "{most}");
        }
    }
}
