//! A violation as a timeline: clients as rows, operations as bars.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::json::{self, Shown};
use super::{Action, History, Operation, Outcome, Violation};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 24.0;
/// A bar, with its label above it.
const LANE: f64 = 38.0;
const BAR: f64 = 16.0;
const LABEL: f64 = 15.0;
/// Of the fonts that are used, per character, rather too much than too little.
const CHAR: f64 = 7.3;
/// Operations that are shown for context only.
const CONTEXT: usize = 150;
/// The longest value that is shown whole.
const VALUE: usize = 24;

/// Colours of the values that matter; they can be told from each other by most people.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9",
];
const GREY: &str = "#9aa3ae";
const RED: &str = "#c1121f";

const FONT: &str = "font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\"";

pub(super) fn draw(history: &History, violation: &Violation) -> String {
    let picture = Picture::new(history, violation);
    let mut svg = String::new();
    picture.write(&mut svg).expect("a string takes everything");
    svg
}

struct Picture<'a> {
    history: &'a History,
    violation: &'a Violation,
    /// What is shown from when to when.
    from: u64,
    to: u64,
    rows: Vec<Row<'a>>,
    /// Operations of the key in this time that are not shown.
    left_out: usize,
}

struct Row<'a> {
    client: u32,
    lanes: Vec<Vec<Bar<'a>>>,
}

struct Bar<'a> {
    operation: &'a Operation,
    /// Its number among those of the violation.
    number: Option<usize>,
    left: f64,
    right: f64,
    label: String,
}

impl<'a> Picture<'a> {
    fn new(history: &'a History, violation: &'a Violation) -> Self {
        let all = history.operations();
        let offending = || violation.operations().iter().filter_map(|at| all.get(*at));
        let first = offending().map(|op| op.start).min().unwrap_or(0);
        let last = offending().filter_map(|op| op.end).max().unwrap_or(first);
        let last = last.max(offending().map(|op| op.start).max().unwrap_or(first));
        let margin = ((last - first) / 12).max(1);
        let mut picture = Self {
            history,
            violation,
            from: first.saturating_sub(margin),
            to: last.saturating_add(margin),
            rows: Vec::new(),
            left_out: 0,
        };
        picture.place();
        picture
    }

    /// Finds a place for each operation that is shown.
    fn place(&mut self) {
        let all = self.history.operations();
        let keys: Vec<&str> = self.offending().map(|(_, op)| op.key.as_str()).collect();
        let number = |at: usize| self.violation.operations().binary_search(&at).ok();
        let mut shown: Vec<usize> = (0..all.len())
            .filter(|&at| {
                let op = &all[at];
                let visible = op.start <= self.to && op.end.is_none_or(|end| end >= self.from);
                // What has been pending since long says nothing here.
                let near = op.start >= self.from || op.end.is_some();
                number(at).is_some() || (visible && near && keys.contains(&op.key.as_str()))
            })
            .collect();
        // The violation itself, and of the rest what is nearest to its middle.
        let middle = self.from + (self.to - self.from) / 2;
        shown.sort_by_key(|&at| (number(at).is_none(), all[at].start.abs_diff(middle)));
        let most = self.violation.operations().len() + CONTEXT;
        self.left_out = shown.len().saturating_sub(most);
        shown.truncate(most);
        shown.sort_by_key(|&at| (all[at].start, at));

        let mut rows: BTreeMap<u32, Row<'a>> = BTreeMap::new();
        for at in shown {
            let operation = &all[at];
            let bar = self.bar(operation, number(at));
            let row = rows.entry(operation.client).or_insert_with(|| Row {
                client: operation.client,
                lanes: Vec::new(),
            });
            let free = row
                .lanes
                .iter_mut()
                .find(|lane| lane.last().is_none_or(|before| before.reach() <= bar.left));
            match free {
                Some(lane) => lane.push(bar),
                None => row.lanes.push(vec![bar]),
            }
        }
        self.rows = rows.into_values().collect();
    }

    fn bar(&self, operation: &'a Operation, number: Option<usize>) -> Bar<'a> {
        let left = self.x(operation.start);
        let right = match operation.end {
            Some(end) if operation.outcome != Outcome::Unknown => self.x(end),
            _ => WIDTH - RIGHT,
        };
        let mut label = match &operation.action {
            Action::Write(value) => format!("write {}", shortened(value)),
            Action::Read(_) if operation.outcome != Outcome::Ok => "read".to_owned(),
            Action::Read(Some(value)) => format!("read {}", shortened(value)),
            Action::Read(None) => "read nothing".to_owned(),
            Action::Call { input, output } => {
                let mut label = shortened(&Shown(input).to_string());
                if operation.outcome == Outcome::Ok {
                    label.push_str(" → ");
                    label.push_str(&shortened(&Shown(output).to_string()));
                }
                label
            }
        };
        match operation.outcome {
            Outcome::Ok => {}
            Outcome::Failed => label.push_str(" failed"),
            Outcome::NotDone => label.push_str(" not done"),
            Outcome::Unknown => label.push_str(" ?"),
        }
        Bar {
            operation,
            number,
            left,
            right: right.max(left + 3.0),
            label,
        }
    }

    fn offending(&self) -> impl Iterator<Item = (usize, &'a Operation)> {
        let all = self.history.operations();
        let places = self.violation.operations().iter().enumerate();
        places.filter_map(|(number, at)| Some((number, all.get(*at)?)))
    }

    fn x(&self, time: u64) -> f64 {
        let time = time.clamp(self.from, self.to);
        let part = (time - self.from) as f64 / (self.to - self.from).max(1) as f64;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    /// The colour of an operation: by its value, or what it does, if that matters.
    fn colour(&self, operation: &Operation) -> &'static str {
        let mut values: Vec<Option<&str>> = Vec::new();
        for (_, op) in self.offending() {
            let value = value(op);
            if !values.contains(&value) {
                values.push(value);
            }
        }
        match values.iter().position(|known| *known == value(operation)) {
            Some(at) if !is_silent(operation) => COLOURS[at % COLOURS.len()],
            _ => GREY,
        }
    }

    fn write(&self, svg: &mut String) -> fmt::Result {
        let reason = wrapped(self.violation.reason(), 150);
        let top = 44.0 + 18.0 * reason.len() as f64;
        let lanes: usize = self.rows.iter().map(|row| row.lanes.len().max(1)).sum();
        let rows = lanes as f64 * LANE + self.rows.len() as f64 * 10.0;
        let axis = top + rows + 8.0;
        let list = axis + 52.0;
        let count = self.violation.operations().len();
        let height = list + 18.0 * count as f64 + 34.0;
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" {FONT} font-size=\"12\">"
        )?;
        writeln!(
            svg,
            "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
        )?;
        writeln!(
            svg,
            "<text x=\"16\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            escaped(&self.title())
        )?;
        for (line, text) in reason.iter().enumerate() {
            let y = 48.0 + 18.0 * line as f64;
            writeln!(
                svg,
                "<text x=\"16\" y=\"{y}\" fill=\"#333a44\">{}</text>",
                escaped(text)
            )?;
        }
        self.write_rows(svg, top)?;
        self.write_axis(svg, top, axis)?;
        for (number, operation) in self.offending() {
            let y = list + 18.0 * number as f64;
            badge(svg, 26.0, y - 4.0, number)?;
            let end = operation.end.map_or("?".to_owned(), |end| self.time(end));
            let text = format!("{operation}, {} to {end}", self.time(operation.start));
            writeln!(svg, "<text x=\"42\" y=\"{y}\">{}</text>", escaped(&text))?;
        }
        self.write_legend(svg, height - 14.0)?;
        writeln!(svg, "</svg>")
    }

    fn title(&self) -> String {
        let mut keys: Vec<&str> = self.offending().map(|(_, op)| op.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        match keys.as_slice() {
            [key] => format!("operations on {:?} that cannot be", shortened(key)),
            _ => "operations that cannot be".to_owned(),
        }
    }

    fn write_rows(&self, svg: &mut String, top: f64) -> fmt::Result {
        let mut y = top;
        for (at, row) in self.rows.iter().enumerate() {
            let height = row.lanes.len().max(1) as f64 * LANE + 10.0;
            if at % 2 == 0 {
                writeln!(
                    svg,
                    "<rect x=\"0\" y=\"{y}\" width=\"{WIDTH}\" height=\"{height}\" fill=\"#f5f7fa\"/>"
                )?;
            }
            y += height;
        }
        // Where the operations of the violation begin and end, so that the eye can compare them.
        for (_, operation) in self.offending() {
            let end = operation.end.filter(|_| operation.outcome == Outcome::Ok);
            for time in [Some(operation.start), end].into_iter().flatten() {
                let x = self.x(time);
                writeln!(
                    svg,
                    "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"{RED}\" stroke-opacity=\"0.35\" stroke-dasharray=\"2 3\"/>"
                )?;
            }
        }
        let mut y = top;
        for row in &self.rows {
            let lanes = row.lanes.len().max(1) as f64;
            let middle = y + 5.0 + lanes * LANE / 2.0 + 8.0;
            writeln!(
                svg,
                "<text x=\"16\" y=\"{middle:.1}\" font-weight=\"bold\">client {}</text>",
                row.client
            )?;
            for (lane, bars) in row.lanes.iter().enumerate() {
                let y = y + 5.0 + lane as f64 * LANE;
                for bar in bars {
                    self.write_bar(svg, bar, y)?;
                }
            }
            y += lanes * LANE + 10.0;
        }
        Ok(())
    }

    fn write_bar(&self, svg: &mut String, bar: &Bar<'_>, y: f64) -> fmt::Result {
        let operation = bar.operation;
        let colour = self.colour(operation);
        let reads = matches!(operation.action, Action::Read(_));
        let known = colour != GREY;
        let fill = if reads { "#ffffff" } else { colour };
        let dashes = match operation.outcome {
            Outcome::Ok => "",
            Outcome::Failed | Outcome::NotDone | Outcome::Unknown => " stroke-dasharray=\"5 3\"",
        };
        let faint = if operation.outcome == Outcome::Ok {
            1.0
        } else {
            0.45
        };
        let (x, top, width) = (bar.left, y + LABEL + 2.0, bar.right - bar.left);
        write!(svg, "<g><title>{}</title>", escaped(&operation.to_string()))?;
        if bar.number.is_some() {
            writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"5\" fill=\"none\" stroke=\"{RED}\" stroke-width=\"2.5\"/>",
                x - 3.5,
                top - 3.5,
                width + 7.0,
                BAR + 7.0
            )?;
        }
        writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"3\" fill=\"{fill}\" fill-opacity=\"{faint}\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>"
        )?;
        let (text, weight) = match (bar.number.is_some(), known) {
            (true, _) => ("#111418", " font-weight=\"bold\""),
            (false, true) => (colour, ""),
            (false, false) => ("#6b7480", ""),
        };
        let mut label = bar.label_left();
        if let Some(number) = bar.number {
            badge(svg, label + 7.0, y + 7.0, number)?;
            label += 18.0;
        }
        writeln!(
            svg,
            "<text x=\"{label:.1}\" y=\"{:.1}\" fill=\"{text}\"{weight}>{}</text></g>",
            y + 11.0,
            escaped(&bar.label)
        )
    }

    fn write_axis(&self, svg: &mut String, top: f64, y: f64) -> fmt::Result {
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"#333a44\"/>",
            WIDTH - RIGHT
        )?;
        let origin = self.origin();
        let step = step(self.to - self.from);
        let first = (self.from - origin).div_ceil(step) * step + origin;
        let mut time = first;
        while time <= self.to {
            let x = self.x(time);
            writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#333a44\" stroke-opacity=\"0.12\"/>",
                y + 5.0
            )?;
            writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#333a44\">{}</text>",
                y + 19.0,
                self.time(time)
            )?;
            time += step;
        }
        Ok(())
    }

    fn write_legend(&self, svg: &mut String, y: f64) -> fmt::Result {
        let calls = self
            .offending()
            .any(|(_, op)| matches!(op.action, Action::Call { .. }));
        let (bars, colours) = match calls {
            true => ("input → output", "what is done"),
            false => ("filled: write · outlined: read", "values"),
        };
        let mut text = format!(
            "{bars} · dashed: failed, or outcome unknown · red: these cannot all be · colours: {colours}"
        );
        if self.left_out > 0 {
            write!(
                text,
                " · {} operations around them are not shown",
                self.left_out
            )?;
        }
        writeln!(
            svg,
            "<text x=\"16\" y=\"{y}\" font-size=\"11\" fill=\"#6b7480\">{text}</text>"
        )
    }

    /// Where times are counted from: the beginning of a simulation, or the first operation of a
    /// real cluster.
    fn origin(&self) -> u64 {
        /// Eleven days. Simulations are shorter.
        const REAL: u64 = 1_000_000_000_000_000;
        let first = self.history.operations().iter().map(|op| op.start).min();
        first
            .filter(|first| *first > REAL)
            .unwrap_or(0)
            .min(self.from)
    }

    fn time(&self, time: u64) -> String {
        let nanos = time.saturating_sub(self.origin());
        let step = step(self.to - self.from);
        let decimals = match step {
            1_000_000_000.. => 1,
            1_000_000.. => 3,
            1_000.. => 6,
            _ => 9,
        };
        format!("{:.decimals$} s", nanos as f64 / 1e9)
    }
}

impl Bar<'_> {
    /// The label begins with the bar, unless it would leave the picture.
    fn label_left(&self) -> f64 {
        self.left.min(WIDTH - 8.0 - self.label_width()).max(LEFT)
    }

    fn label_width(&self) -> f64 {
        let badge = if self.number.is_some() { 18.0 } else { 0.0 };
        self.label.chars().count() as f64 * CHAR + badge
    }

    /// Where the next one in the lane may begin.
    fn reach(&self) -> f64 {
        self.right.max(self.label_left() + self.label_width()) + 9.0
    }
}

fn badge(svg: &mut String, x: f64, y: f64, number: usize) -> fmt::Result {
    writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7.5\" fill=\"{RED}\"/>"
    )?;
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" font-weight=\"bold\" fill=\"#ffffff\">{}</text>",
        y + 3.6,
        number + 1
    )
}

fn value(operation: &Operation) -> Option<&str> {
    match &operation.action {
        Action::Write(value) => Some(value),
        Action::Read(found) => found.as_deref(),
        Action::Call { input, .. } => Some(json::kind(input)),
    }
}

/// Whether it says nothing: a read that has found nothing out, or what was not done.
fn is_silent(operation: &Operation) -> bool {
    match operation.outcome {
        Outcome::Ok => false,
        Outcome::NotDone => true,
        Outcome::Failed | Outcome::Unknown => matches!(operation.action, Action::Read(_)),
    }
}

/// A round number of nanoseconds, of which some eight are in the whole.
fn step(whole: u64) -> u64 {
    let rough = (whole / 8).max(1);
    let power = 10_u64.pow(rough.ilog10());
    match rough / power {
        0..2 => power,
        2..5 => 2 * power,
        _ => 5 * power,
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= VALUE {
        return text.to_owned();
    }
    let start: String = text.chars().take(VALUE - 1).collect();
    format!("{start}…")
}

/// Lines of about this many characters.
fn wrapped(text: &str, length: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + word.chars().count() >= length {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// As text in XML, which knows no control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Recorder;

    #[test]
    fn values_and_keys_are_text_and_not_markup() {
        let recorder = Recorder::new();
        recorder.read(1, "<k&\u{7}>").ok(Some("</svg>"));
        let history = recorder.history();
        let verdict = history.linearizable();
        let svg = history.svg(verdict.violation().expect("never written"));
        assert!(svg.contains("read &lt;/svg&gt;") && svg.contains("&lt;k&amp;"));
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert!(!svg.contains('\u{7}'));
    }

    #[test]
    fn an_empty_violation_and_a_long_history_have_pictures() {
        let recorder = Recorder::with_clock(|| 5);
        assert!(draw(&recorder.history(), &Violation::new("none", [])).ends_with("</svg>\n"));
        let writes: Vec<_> = (0..1_000)
            .map(|client| recorder.write(client, "k", "a"))
            .collect();
        for write in writes {
            write.ok();
        }
        let svg = draw(&recorder.history(), &Violation::new("some", [500]));
        assert!(svg.contains("not shown"));
    }

    #[test]
    fn steps_of_the_axis_are_round() {
        let steps = [1, 100, 1_000, 80_000_000, 12_345_678_901].map(step);
        assert_eq!(steps, [1, 10, 100, 10_000_000, 1_000_000_000]);
    }
}
