//! Plots as SVG within the page: lines over time, in the page's own colours, light or dark.

use super::super::names::{Directory, resource};
use super::super::time::rfc3339;
use super::page::escape;
use super::sums::{Of, Sample, Sums};
use super::tables::group_name;
use super::{Period, SECOND_NS};
use std::collections::BTreeMap;
use std::fmt::Write;
use vendue_wire::message::*;

/// Size of the drawing and of what stands around the lines, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Lines of a plot at most: there are as many colours.
const LINES_MAX: usize = 8;
/// Marks on the axis of time.
const MARKS: u64 = 4;
/// Plots of a kind at most.
const PLOTS_MAX: usize = 32;

/// A line: its name, and values by step.
struct Line {
    name: String,
    values: BTreeMap<u64, f64>,
}

/// Plots under a heading.
#[derive(Debug)]
pub struct Chapter {
    /// Heading.
    pub title: &'static str,
    /// What is said where there is nothing to draw.
    pub empty: &'static str,
    /// Drawings, as they stand in the page.
    pub plots: Vec<String>,
    /// Those that there was no room for.
    pub left_out: usize,
}

impl Chapter {
    fn new(title: &'static str, empty: &'static str, mut plots: Vec<String>) -> Chapter {
        let left_out = plots.len().saturating_sub(PLOTS_MAX);
        plots.truncate(PLOTS_MAX);
        Chapter { title, empty, plots, left_out }
    }
}

/// All plots of a report.
pub fn all(sums: &Sums, names: &Directory, groups: &[GroupRow], period: &Period) -> Vec<Chapter> {
    let books = || {
        sums.samples.iter().filter_map(|(of, steps)| match *of {
            Of::Book(book, _) => Some((names.book(book), steps)),
            Of::Group(..) => None,
        })
    };
    let drawn = |title: String, unit: &str, lines: Vec<Line>| plot(&title, unit, &lines, period);
    let prices = books().filter_map(|(name, steps)| {
        drawn(format!("Price of {name}"), "ticks a credit", price_lines(steps, 1.0))
    });
    let rents = books()
        .filter(|(_, steps)| steps.values().any(|sample| sample.granted > 0))
        .filter_map(|(name, steps)| {
            drawn(format!("Rent of {name}"), "ticks a VRU-second", rent_lines(steps))
        });
    let in_use = |sample: &Sample| sample.used + sample.reserved + sample.granted > 0;
    let shares =
        books().filter(|(_, steps)| steps.values().any(in_use)).filter_map(|(name, steps)| {
            drawn(format!("Use of {name}"), "% of capacity", share_lines(steps))
        });
    let swarms = sums.samples.iter().filter_map(|(of, steps)| {
        let Of::Group(group, number) = *of else { return None };
        let title = format!("VRU price of {}, {}", group_name(groups, group), resource(number));
        drawn(title, "funds a VRU-second", price_lines(steps, 1e-6))
    });
    let money = drawn("Earned less paid".to_owned(), "funds a step", money_lines(sums, names));
    vec![
        Chapter::new("Utilisation", "Nothing was reserved, leased or used.", shares.collect()),
        Chapter::new("Prices", "Nothing was traded.", prices.collect()),
        Chapter::new("Rents", "Nothing was leased.", rents.collect()),
        Chapter::new("VRU prices of swarms", "There is no swarm.", swarms.collect()),
        Chapter::new("Money", "No account earned or paid.", money.into_iter().collect()),
    ]
}

fn line(name: &str, steps: &BTreeMap<u64, Sample>, value: impl Fn(&Sample) -> Option<f64>) -> Line {
    let values = steps.iter().filter_map(|(step_ns, sample)| Some((*step_ns, value(sample)?)));
    Line { name: name.to_owned(), values: values.collect() }
}

fn price_lines(steps: &BTreeMap<u64, Sample>, unit: f64) -> Vec<Line> {
    let price = |at: usize| {
        move |sample: &Sample| {
            Some(sample.prices[at]).filter(|&price| price > 0).map(|price| price as f64 * unit)
        }
    };
    vec![line("last", steps, price(3)), line("high", steps, price(1)), line("low", steps, price(2))]
}

fn rent_lines(steps: &BTreeMap<u64, Sample>) -> Vec<Line> {
    let rent = |at: usize| move |sample: &Sample| Some(f64::from(sample.rents[at]));
    let classes = vendue_wire::code::LeaseClass::ALL;
    classes.iter().enumerate().map(|(at, class)| line(class.text(), steps, rent(at))).collect()
}

fn share_lines(steps: &BTreeMap<u64, Sample>) -> Vec<Line> {
    let share = |part: fn(&Sample) -> i128| {
        move |sample: &Sample| {
            let whole = sample.capacity;
            (whole > 0).then(|| part(sample) as f64 * 100.0 / whole as f64)
        }
    };
    vec![
        line("used", steps, share(|sample| sample.used)),
        line("reserved", steps, share(|sample| sample.reserved)),
        line("leased", steps, share(|sample| sample.granted)),
        line("lent", steps, share(|sample| sample.lent)),
    ]
}

/// The accounts through which most money went.
fn money_lines(sums: &Sums, names: &Directory) -> Vec<Line> {
    let mut turnover = BTreeMap::<u32, i128>::new();
    for ((account, _), [earned, paid]) in &sums.money {
        *turnover.entry(*account).or_default() += earned.abs() + paid.abs();
    }
    let mut accounts: Vec<(u32, i128)> = turnover.into_iter().collect();
    accounts.sort_by_key(|&(account, turnover)| (-turnover, account));
    let line = |&(account, _): &(u32, i128)| {
        let steps = sums.money.range((account, 0)..=(account, u64::MAX));
        let values =
            steps.map(|((_, step_ns), [earned, paid])| (*step_ns, (earned - paid) as f64 * 1e-6));
        Line { name: names.account(account), values: values.collect() }
    };
    accounts.iter().take(LINES_MAX).map(line).collect()
}

/// The range of the values, with zero in it, and a bit of room above; `None` if there are none.
fn range(lines: &[Line]) -> Option<(f64, f64)> {
    let values = || lines.iter().flat_map(|line| line.values.values().copied());
    values().next()?;
    let low = values().fold(0.0, f64::min);
    let high = values().fold(0.0, f64::max);
    Some(if high > low { (low, high + (high - low) / 20.0) } else { (low, low + 1.0) })
}

/// Round numbers within a range: 1, 2 or 5 times a power of ten apart.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
    let step = step.into_iter().find(|&step| step >= rough).unwrap_or(rough);
    let first = (low / step).ceil();
    (0..8).map(|at| (first + f64::from(at)) * step).take_while(|&mark| mark <= high).collect()
}

/// A number with as many decimals as it needs.
fn short(value: f64) -> String {
    let text = if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.6}") };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A drawing of lines over the period; `None` if there is nothing to draw.
fn plot(title: &str, unit: &str, lines: &[Line], period: &Period) -> Option<String> {
    let (low, high) = range(lines)?;
    let step_ns = period.step_s * SECOND_NS;
    let first = period.from_ns - period.from_ns % step_ns;
    let last = period.to_ns.div_ceil(step_ns) * step_ns;
    let x = |time_ns: u64| {
        let part = time_ns.saturating_sub(first) as f64 / (last - first).max(1) as f64;
        LEFT + part.min(1.0) * (WIDTH - LEFT - RIGHT)
    };
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut out = String::new();
    let (name, unit) = (escape(title), escape(unit));
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<figure><figcaption>{name} <small>{unit}</small></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{name}, {unit}\">"
    );
    for mark in marks(low, high) {
        let (right, at) = (WIDTH - RIGHT, y(mark));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(mark)
        );
    }
    for at in 0..=MARKS {
        let time_ns = first + (last - first) / MARKS * at;
        let anchor = match at {
            0 => "start",
            MARKS => "end",
            _ => "middle",
        };
        let _ = write!(
            out,
            "<text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x(time_ns),
            HEIGHT - 8.0,
            clock(time_ns, last - first)
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let points = path(line, step_ns, &x, &y);
        let _ = write!(out, "<path class=\"line c{at}\" d=\"{points}\"/>");
    }
    out += "</svg><ul class=\"legend\">";
    for (at, line) in lines.iter().enumerate() {
        let _ = write!(out, "<li class=\"c{at}\">{}</li>", escape(&line.name));
    }
    out += "</ul></figure>";
    Some(out)
}

/// A value holds for its step; where there is none, the line has a gap.
fn path(line: &Line, step_ns: u64, x: &impl Fn(u64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut out = String::new();
    let mut reached = None;
    for (&time_ns, &value) in &line.values {
        let verb = if reached == Some(time_ns) { 'L' } else { 'M' };
        let end_ns = time_ns + step_ns;
        let (from, to, at) = (x(time_ns), x(end_ns), y(value));
        let _ = write!(out, "{verb}{from:.1} {at:.1}L{to:.1} {at:.1}");
        reached = Some(end_ns);
    }
    out
}

/// The time of a mark: with the day where the period is longer than one, with seconds where it is short.
fn clock(time_ns: u64, length_ns: u64) -> String {
    let text = rfc3339(time_ns);
    let part = match length_ns / SECOND_NS {
        0..600 => 11..19,
        600..86_400 => 11..16,
        86_400..2_592_000 => 5..16,
        _ => 0..10,
    };
    text.get(part).unwrap_or_default().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_within() {
        assert_eq!(marks(0.0, 100.0), [0.0, 50.0, 100.0]);
        assert_eq!(marks(0.0, 84.0), [0.0, 50.0]);
        assert_eq!(marks(-1.0, 1.0), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(
            (short(0.000_25), short(1500.0), short(2.0)),
            ("0.00025".into(), "1500".into(), "2".into())
        );
    }

    #[test]
    fn a_step_without_a_value_is_a_gap() {
        let values = BTreeMap::from([(0, 1.0), (10, 2.0), (30, 3.0)]);
        let line = Line { name: String::new(), values };
        let drawn = path(&line, 10, &|time_ns| time_ns as f64, &|value| value);
        assert_eq!(drawn, "M0.0 1.0L10.0 1.0L10.0 2.0L20.0 2.0M30.0 3.0L40.0 3.0");
    }

    #[test]
    fn nothing_is_not_drawn_and_names_are_escaped() {
        let period = Period { from_ns: SECOND_NS, to_ns: 9 * SECOND_NS, step_s: 1 };
        assert!(
            plot("x", "y", &[Line { name: String::new(), values: BTreeMap::new() }], &period)
                .is_none()
        );
        let line = Line { name: "<script>".to_owned(), values: BTreeMap::from([(SECOND_NS, 0.0)]) };
        let drawn = plot("a & b", "\"u\"", &[line], &period).unwrap();
        assert!(!drawn.contains("<script>") && drawn.contains("&lt;script&gt;"), "{drawn}");
        assert!(drawn.contains("aria-label=\"a &amp; b, &quot;u&quot;\""), "{drawn}");
    }
}
