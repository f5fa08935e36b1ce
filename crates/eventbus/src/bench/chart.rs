//! Charts as SVG: lines over two axes, each of them even or logarithmic.
//!
//! Colours are those of the page (`--line-0`, …), so that a chart is readable in light and dark.

use std::fmt::Write;

/// Size and margins, in the units of the drawing.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;

/// How many marks an even axis has, about.
const MARKS: f64 = 5.0;

/// Two lines over two axes.
pub(super) struct Chart<'a> {
    /// What it shows, for those who cannot see it.
    pub(super) label: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// A place to mark on the x axis, with its name.
    pub(super) mark: Option<(f64, &'a str)>,
}

/// One line. Its number is its colour.
pub(super) struct Series {
    /// What it is about, for the key to it.
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) look: Look,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Look {
    /// From point to point.
    Plain,
    /// The same with a dot at each point.
    Dotted,
    /// In steps, the area below filled: each point is the right end of its step.
    Filled,
}

/// What values mean along one side.
pub(super) struct Axis {
    pub(super) title: &'static str,
    from: f64,
    to: f64,
    is_logarithmic: bool,
    marks: Vec<(f64, String)>,
}

// === impl Axis ===

impl Axis {
    /// An even one from zero to a round number that is at least `max`.
    pub(super) fn even(title: &'static str, max: f64, name: impl Fn(f64) -> String) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let rough = max / MARKS;
        let magnitude = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let count = (max / step).ceil() as u32;
        let marks = (0..=count).map(|mark| f64::from(mark) * step);
        let marks: Vec<_> = marks.map(|mark| (mark, name(mark))).collect();
        Self { title, from: 0.0, to: f64::from(count) * step, is_logarithmic: false, marks }
    }

    /// The same, ending where the values do.
    pub(super) fn ending_at(mut self, end: f64) -> Self {
        self.to = end;
        self.marks.retain(|(at, _)| *at <= end);
        self
    }

    /// A logarithmic one around two values above zero, marked at 1, 2 and 5 of each magnitude, or
    /// at its powers of ten alone.
    pub(super) fn logarithmic(
        title: &'static str,
        (min, max): (f64, f64),
        name: impl Fn(f64) -> String,
    ) -> Self {
        let magnitudes = (min.log10().floor() as i32)..=(max.log10().ceil() as i32);
        let is_wide = max / min > 300.0;
        let of = |magnitude: i32| [1.0, 2.0, 5.0].map(|one| one * 10f64.powi(magnitude));
        let all: Vec<f64> = magnitudes.flat_map(of).collect();
        let from = all.iter().copied().rfind(|mark| *mark <= min).unwrap_or(min);
        let to = all.iter().copied().find(|mark| *mark >= max && *mark > from).unwrap_or(max);
        let is_ten = |mark: f64| (mark.log10() - mark.log10().round()).abs() < 1e-9;
        let within = all.into_iter().filter(|mark| (from..=to).contains(mark));
        let kept = within.filter(|mark| !is_wide || is_ten(*mark));
        let marks = kept.map(|mark| (mark, name(mark))).collect();
        Self { title, from, to, is_logarithmic: true, marks }
    }

    /// An even one with marks of its own.
    pub(super) fn marked(title: &'static str, marks: Vec<(f64, String)>) -> Self {
        let from = marks.first().map_or(0.0, |(at, _)| *at);
        let to = marks.last().map_or(1.0, |(at, _)| *at);
        Self { title, from, to, is_logarithmic: false, marks }
    }

    /// Where a value stands: 0 at the beginning, 1 at the end.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_logarithmic { value.log10() } else { value };
        let (from, to) = (scale(self.from), scale(self.to));
        ((scale(value.clamp(self.from, self.to)) - from) / (to - from)).clamp(0.0, 1.0)
    }
}

// === impl Chart ===

impl Chart<'_> {
    /// The drawing, as an element of a page.
    pub(super) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escaped(self.label)
        );
        self.draw_axes(&mut svg);
        for (number, series) in self.series.iter().enumerate() {
            self.draw_series(&mut svg, number, series);
        }
        if let Some((at, name)) = self.mark {
            let x = self.x_of(at);
            let bottom = HEIGHT - BOTTOM;
            // On the side where there is room.
            let is_right = self.x.place(at) > 0.5;
            let (anchor, aside) = if is_right { ("end", -6.0) } else { ("start", 6.0) };
            push(&mut svg, format_args!("<path class=\"mark\" d=\"M{x:.1} {TOP}V{bottom}\"/>"));
            let (x, y) = (x + aside, TOP + 11.0);
            let name = escaped(name);
            push(
                &mut svg,
                format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{name}</text>"),
            );
        }
        svg + "</svg>"
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, name) in &self.y.marks {
            let (y, name) = (self.y_of(*value), escaped(name));
            push(svg, format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
            let (x, y) = (LEFT - 8.0, y + 4.0);
            push(
                svg,
                format_args!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{name}</text>"),
            );
        }
        for (value, name) in &self.x.marks {
            let (x, name) = (self.x_of(*value), escaped(name));
            let (end, y) = (bottom + 5.0, bottom + 21.0);
            push(svg, format_args!("<path class=\"tick\" d=\"M{x:.1} {bottom}V{end}\"/>"));
            push(
                svg,
                format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>"),
            );
        }
        push(svg, format_args!("<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>"));
        let (x, y) = (f64::midpoint(LEFT, right), HEIGHT - 8.0);
        let title = escaped(self.x.title);
        push(
            svg,
            format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{title}</text>"),
        );
        let (y, title) = (f64::midpoint(TOP, bottom), escaped(self.y.title));
        push(
            svg,
            format_args!(
                "<text transform=\"translate(14 {y:.1}) rotate(-90)\" \
                 text-anchor=\"middle\">{title}</text>"
            ),
        );
    }

    fn draw_series(&self, svg: &mut String, number: usize, series: &Series) {
        let places: Vec<_> =
            series.points.iter().map(|(x, y)| (self.x_of(*x), self.y_of(*y))).collect();
        let Some((first, _)) = places.split_first() else {
            return;
        };
        let mut path = String::new();
        for (place, (x, y)) in places.iter().enumerate() {
            match (series.look, place) {
                (Look::Filled, _) => push(&mut path, format_args!("V{y:.1}H{x:.1}")),
                (_, 0) => push(&mut path, format_args!("M{x:.1} {y:.1}")),
                _ => push(&mut path, format_args!("L{x:.1} {y:.1}")),
            }
        }
        if series.look == Look::Filled {
            let bottom = HEIGHT - BOTTOM;
            // The first step begins where the one before it would end.
            let width = places.get(1).map_or(8.0, |second| second.0 - first.0);
            path = format!("M{:.1} {bottom}{path}V{bottom}", (first.0 - width).max(LEFT));
            push(svg, format_args!("<path class=\"area series-{number}\" d=\"{path}Z\"/>"));
        }
        push(svg, format_args!("<path class=\"line series-{number}\" d=\"{path}\"/>"));
        for (x, y) in places.iter().filter(|_| series.look == Look::Dotted) {
            push(
                svg,
                format_args!(
                    "<circle class=\"dot series-{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                ),
            );
        }
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_of(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Text as it may stand between tags, and between quotation marks.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = text.write_fmt(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn even_axes_end_at_round_numbers() {
        let axis = |max: f64| Axis::even("", max, |mark| format!("{mark}"));
        assert_eq!(names(&axis(93.0)), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(names(&axis(0.0)).first(), Some(&"0"));
        assert!(axis(23_456.0).to >= 23_456.0);
        assert_eq!((axis(100.0).place(0.0), axis(100.0).place(100.0)), (0.0, 1.0));
    }

    #[test]
    fn logarithmic_axes_enclose_what_is_shown() {
        let axis = |min, max| Axis::logarithmic("", (min, max), |mark| format!("{mark}"));
        assert_eq!(names(&axis(120.0, 900.0)), ["100", "200", "500", "1000"]);
        assert_eq!(names(&axis(3.0, 90_000.0)), ["10", "100", "1000", "10000", "100000"]);
        assert_eq!(axis(1.0, 1.0).place(1.0), 0.0);
        assert!((axis(1.0, 100.0).place(10.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn nothing_that_is_shown_can_be_markup() {
        let chart = Chart {
            label: "<a & \"b\">",
            x: Axis::even("x", 1.0, |_| "<".to_owned()),
            y: Axis::even("y", 1.0, |mark| mark.to_string()),
            series: vec![Series { name: "", points: vec![], look: Look::Plain }],
            mark: Some((0.5, "</svg>")),
        };
        let svg = chart.svg();
        assert!(svg.contains("&lt;a &amp; &quot;b&quot;&gt;") && svg.contains("&lt;/svg&gt;"));
        assert_eq!(svg.matches("</svg>").count(), 1, "{svg}");
    }
}
