//! Charts as self-contained SVG: lines, points, grouped columns, bars.
//!
//! Text and axes are drawn in the surrounding page's colour, series in the colours of Okabe and Ito (2008), which people
//! with colour vision deficiencies tell apart.

use std::fmt::Write;

/// Colours of series, in their order.
pub const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];

/// Width of every picture; pages scale it.
const WIDTH: f64 = 560.0;
/// Height of the plotting area of a [`Chart`].
const PLOT_HEIGHT: f64 = 250.0;
/// Room for labels of the y axis, and beside the last one of the x axis.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 14.0;
/// Room for numbers and label of the x axis.
const BOTTOM: f64 = 46.0;
/// Height of a line of the legend, and of a bar with its gap.
const LINE: f64 = 20.0;
const BAR: f64 = 26.0;
/// Width that a character is taken to have; a little above the truth for most.
const CHAR: f64 = 6.8;

/// How numbers are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// In proportion.
    #[default]
    Linear,
    /// By their logarithm; values must be above 0, others are left out.
    Log,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: String,
    /// How.
    pub scale: Scale,
}

impl Axis {
    /// A linear axis.
    #[must_use]
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Linear }
    }

    /// A logarithmic axis.
    #[must_use]
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log }
    }
}

/// How the points of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line with a dot at each.
    Line,
    /// A line without dots.
    Plain,
    /// A dashed line.
    Dashed,
    /// Dots.
    Dots,
    /// Columns from 0 on; those of several series at one x stand side by side.
    Columns,
}

/// Points of one colour.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (x, y)
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub mark: Mark,
}

/// A diagram of two axes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// Places numbers of one axis.
struct Placement {
    scale: Scale,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    /// Numbers that are written at the axis.
    ticks: Vec<f64>,
}

impl Placement {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, has_zero: bool, start: f64, end: f64) -> Self {
        let usable = |x: &f64| x.is_finite() && (scale == Scale::Linear || *x > 0.0);
        let (mut low, mut high) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low > high {
            (low, high) = (0.5, 1.0);
        }
        if has_zero && scale == Scale::Linear {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        let ticks = match scale {
            Scale::Linear => {
                if low == high {
                    (low, high) = (low - 0.5, high + 0.5);
                }
                let step = round_step((high - low) / 5.0);
                (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
                #[expect(clippy::cast_possible_truncation, reason = "about five")]
                let n = ((high - low) / step).round() as i32;
                (0..=n).map(|idx| low + f64::from(idx) * step).collect()
            }
            Scale::Log => {
                (low, high) = (low.log10(), high.log10());
                #[expect(clippy::cast_possible_truncation, reason = "exponents of doubles")]
                let (first, last) = (low.floor() as i32, high.ceil().max(low.floor() + 1.0) as i32);
                (low, high) = (f64::from(first), f64::from(last));
                let stride = usize::try_from((last - first) / 6 + 1).unwrap_or(1);
                (first..=last).step_by(stride).map(|power| 10f64.powi(power)).collect()
            }
        };
        Self { scale, low, high, start, end, ticks }
    }

    /// The place of `value`; `None` where the axis has none for it.
    fn at(&self, value: f64) -> Option<f64> {
        let value = if self.scale == Scale::Log { value.log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        share.is_finite().then_some(self.start + share * (self.end - self.start))
    }
}

/// The next larger of 1, 2, 5 × 10ⁿ.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    factors.into_iter().find(|factor| *factor >= step * 0.999).unwrap_or(step)
}

/// A number as short as it can be told from its neighbours on an axis.
fn tick_text(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `text` for the content of an element or an attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // Characters that XML has no place for, and those that turn the direction of text around.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

fn open(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"currentColor\">\n"
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    // Writing to a string cannot fail, here and below.
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(content));
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), opacity: f64) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"currentColor\" \
         stroke-opacity=\"{opacity}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str, title: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\">\
         <title>{}</title></rect>",
        escaped(title)
    );
}

/// Names with squares of their colours, in as many lines as they need; gives the height.
fn legend(svg: &mut String, top: f64, names: &[&str]) -> f64 {
    let (mut x, mut y) = (LEFT, top);
    for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
        let width = 30.0 + CHAR * name.chars().count() as f64;
        if x > LEFT && x + width > WIDTH - RIGHT {
            (x, y) = (LEFT, y + LINE);
        }
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{colour}\"/>"
        );
        text(svg, x + 16.0, y + 10.0, "start", name);
        x += width;
    }
    y + LINE - top
}

impl Chart {
    /// The picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let (body, height) = self.body();
        open(height) + &body + "</svg>\n"
    }

    /// What the picture holds, and its height.
    fn body(&self) -> (String, f64) {
        let all = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let has_columns = self.series.iter().any(|series| series.mark == Mark::Columns);
        let pad = if has_columns { 0.5 } else { 0.0 };
        let xs = all().flat_map(|(x, _)| [x - pad, x + pad]);
        let x = Placement::new(self.x.scale, xs, false, LEFT, WIDTH - RIGHT);
        let ys = all().map(|(_, y)| y);
        let y = Placement::new(self.y.scale, ys, has_columns, TOP + PLOT_HEIGHT, TOP);
        let mut body = String::new();
        self.axes(&mut body, &x, &y);
        let n_columns = self.series.iter().filter(|series| series.mark == Mark::Columns).count().max(1);
        let mut column_idx = 0;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            match series.mark {
                Mark::Line | Mark::Plain | Mark::Dashed => polyline(&mut body, series, colour, &x, &y),
                Mark::Dots => dots(&mut body, series, colour, &x, &y),
                Mark::Columns => {
                    columns(&mut body, series, colour, &x, &y, (column_idx, n_columns));
                    column_idx += 1;
                }
            }
        }
        let mut height = TOP + PLOT_HEIGHT + BOTTOM;
        if self.series.len() > 1 {
            let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
            height += legend(&mut body, height, &names);
        }
        (body, height)
    }

    fn axes(&self, svg: &mut String, x: &Placement, y: &Placement) {
        let bottom = TOP + PLOT_HEIGHT;
        for (tick, at) in y.ticks.iter().filter_map(|tick| Some((tick, y.at(*tick)?))) {
            line(svg, (LEFT, at), (WIDTH - RIGHT, at), 0.15);
            text(svg, LEFT - 8.0, at + 4.0, "end", &tick_text(*tick));
        }
        for (tick, at) in x.ticks.iter().filter_map(|tick| Some((tick, x.at(*tick)?))) {
            line(svg, (at, bottom), (at, bottom + 5.0), 0.6);
            text(svg, at, bottom + 19.0, "middle", &tick_text(*tick));
        }
        line(svg, (LEFT, bottom), (WIDTH - RIGHT, bottom), 0.6);
        text(svg, f64::midpoint(LEFT, WIDTH - RIGHT), bottom + 38.0, "middle", &self.x.label);
        let middle = TOP + PLOT_HEIGHT / 2.0;
        let _ = writeln!(
            svg,
            "<text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(&self.y.label)
        );
    }
}

/// Charts below each other, as one picture.
#[must_use]
pub fn stacked(charts: &[Chart]) -> String {
    let (mut all, mut top) = (String::new(), 0.0);
    for chart in charts {
        let (body, height) = chart.body();
        let _ = writeln!(all, "<g transform=\"translate(0 {top})\">\n{body}</g>");
        top += height;
    }
    open(top) + &all + "</svg>\n"
}

fn placed<'a>(
    series: &'a Series,
    x: &'a Placement,
    y: &'a Placement,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    series.points.iter().filter_map(|point| x.at(point.0).zip(y.at(point.1)))
}

fn polyline(svg: &mut String, series: &Series, colour: &str, x: &Placement, y: &Placement) {
    let points: Vec<String> = placed(series, x, y).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dashes = if series.mark == Mark::Dashed { " stroke-dasharray=\"5 4\"" } else { "" };
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
        points.join(" ")
    );
    if series.mark == Mark::Line {
        for (at_x, at_y) in placed(series, x, y) {
            let _ = writeln!(svg, "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
}

fn dots(svg: &mut String, series: &Series, colour: &str, x: &Placement, y: &Placement) {
    for (at_x, at_y) in placed(series, x, y) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"1.8\" fill=\"{colour}\" fill-opacity=\"0.55\"/>"
        );
    }
}

fn columns(
    svg: &mut String,
    series: &Series,
    colour: &str,
    x: &Placement,
    y: &Placement,
    (idx, n): (usize, usize),
) {
    let Some(zero) = y.at(if y.scale == Scale::Log { 10f64.powf(y.low) } else { 0.0 }) else { return };
    for (value, at) in &series.points {
        let (Some(left), Some(right), Some(top)) = (x.at(value - 0.4), x.at(value + 0.4), y.at(*at)) else {
            continue;
        };
        let width = (right - left) / n as f64;
        let title = format!("{}, {}: {}", series.name, tick_text(*value), tick_text(*at));
        rect(svg, left + width * idx as f64, top.min(zero), width * 0.92, (zero - top).abs(), colour, &title);
    }
}

/// Horizontal bars, each labelled and with its value and `unit` behind it. Longest labels are cut.
#[must_use]
pub fn bars(rows: &[(String, f64)], unit: &str) -> String {
    let label_width = label_width(rows.iter().map(|(label, _)| label.as_str()));
    let value_width = 90.0;
    let most = rows.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = open(BAR * rows.len() as f64 + 8.0);
    for (row_idx, (label, value)) in rows.iter().enumerate() {
        let top = 4.0 + BAR * row_idx as f64;
        text(&mut svg, label_width - 8.0, top + 16.0, "end", &shortened(label));
        let width = (WIDTH - label_width - value_width) * (value / most).clamp(0.0, 1.0);
        rect(&mut svg, label_width, top + 3.0, width, BAR - 7.0, COLOURS[0], label);
        text(
            &mut svg,
            label_width + width + 6.0,
            top + 16.0,
            "start",
            &format!("{} {unit}", tick_text(*value)),
        );
    }
    svg + "</svg>\n"
}

/// A bar per row, cut into the shares that its values have of their sum.
#[must_use]
pub fn shares(parts: &[&str], rows: &[(String, Vec<f64>)]) -> String {
    let label_width = label_width(rows.iter().map(|(label, _)| label.as_str()));
    let mut body = String::new();
    for (row_idx, (label, values)) in rows.iter().enumerate() {
        let top = 4.0 + BAR * row_idx as f64;
        text(&mut body, label_width - 8.0, top + 16.0, "end", &shortened(label));
        let sum: f64 = values.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut left = label_width;
        for ((value, part), colour) in values.iter().zip(parts).zip(COLOURS.iter().cycle()) {
            let share = value / sum;
            let width = (WIDTH - label_width - RIGHT) * share;
            let title = format!("{part}: {:.1} %", share * 100.0);
            rect(&mut body, left, top + 2.0, width, BAR - 6.0, colour, &title);
            if width > 44.0 {
                let (x, y) = (left + width / 2.0, top + 16.0);
                let _ = writeln!(
                    body,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"#fff\">{:.0} %</text>",
                    share * 100.0
                );
            }
            left += width;
        }
    }
    let top = BAR * rows.len() as f64 + 12.0;
    let height = top + legend(&mut body, top, parts);
    open(height) + &body + "</svg>\n"
}

/// Most characters of a label beside a bar.
const LABEL_CHARS: usize = 34;

fn label_width<'a>(labels: impl Iterator<Item = &'a str>) -> f64 {
    let longest = labels.map(|label| label.chars().count().min(LABEL_CHARS)).max().unwrap_or(0);
    CHAR * longest as f64 + 16.0
}

/// The end of a label that is too long, which is what tells tensors' names apart.
fn shortened(label: &str) -> String {
    let n_chars = label.chars().count();
    if n_chars <= LABEL_CHARS {
        return label.to_owned();
    }
    let end: String = label.chars().skip(n_chars + 1 - LABEL_CHARS).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let place = Placement::new(Scale::Linear, [0.3, 7.9].into_iter(), false, 0.0, 80.0);
        assert_eq!(place.ticks, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(place.at(2.0), Some(20.0));
        let place = Placement::new(Scale::Log, [0.02, 30.0, -1.0].into_iter(), false, 0.0, 40.0);
        assert_eq!(place.ticks.len(), 5);
        assert!((place.at(1.0).unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(place.at(-1.0), None, "no logarithm, no place");
        for value in [0.0, 5.0] {
            let place = Placement::new(Scale::Linear, std::iter::once(value), false, 0.0, 1.0);
            assert!(place.at(value).is_some_and(|at| (0.0..=1.0).contains(&at)), "a single value");
        }
    }

    #[test]
    fn names_cannot_leave_their_elements() {
        let hostile = "</text><script>alert(1)</script>\"\u{202e}";
        let series =
            Series { name: hostile.into(), points: vec![(1.0, 2.0), (2.0, 3.0)], mark: Mark::Columns };
        let label = || Axis::linear(hostile);
        let chart = Chart { x: label(), y: label(), series: vec![series.clone(), series] };
        let bars = bars(&[(hostile.into(), 1.0)], hostile);
        let shares = shares(&[hostile], &[(hostile.into(), vec![1.0])]);
        for svg in [chart.to_svg(), stacked(&[chart.clone(), chart]), bars, shares] {
            assert!(!svg.contains("<script") && !svg.contains('\u{202e}'), "{svg}");
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }
}
