//! The percentiles as a picture: latency over the share of requests that were slower, both on
//! logarithmic scales, so that the tail is as wide as the rest.

use crate::LoadError;
use crate::report::{Histogram, Tally};
use plotters::prelude::*;
use std::path::Path;

/// Pixels.
const SIZE: (u32, u32) = (960, 540);
/// Points of a line.
const POINTS: usize = 400;

/// Writes the picture of a run as SVG.
///
/// # Errors
/// [`LoadError::Plot`].
pub fn write(path: &Path, title: &str, tally: &Tally) -> Result<(), LoadError> {
    let failed = |what: String| LoadError::Plot { path: path.to_owned(), what };
    let mut lines = vec![
        ("order-to-ack".to_owned(), &tally.order_ack_ns),
        ("cancel-to-ack".to_owned(), &tally.cancel_ack_ns),
    ];
    if tally.profiles.len() > 1 {
        let profiles = tally.profiles.iter();
        lines.extend(profiles.map(|(profile, ns)| (profile.name().to_owned(), ns)));
    }
    if let Some([calm, attacked]) = &tally.windows {
        lines.push(("without attack".to_owned(), calm));
        lines.push(("under attack".to_owned(), attacked));
    }
    lines.retain(|(_, histogram)| !histogram.is_empty());
    let mut svg = String::new();
    draw(&mut svg, title, &lines).map_err(|error| failed(error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| failed(error.to_string()))
}

/// Where the line of a histogram goes: 1 / (1 - quantile), microseconds.
fn points(histogram: &Histogram) -> Vec<(f64, f64)> {
    let last = (histogram.len() as f64).max(2.0);
    let at = |point: usize| {
        let x = last.powf(point as f64 / POINTS as f64);
        let quantile = 1.0 - 1.0 / x;
        (x, (histogram.value_at_quantile(quantile) as f64 / 1e3).max(1e-3))
    };
    (0..=POINTS).map(at).collect()
}

type DrawError = Box<dyn std::error::Error>;

fn draw(svg: &mut String, title: &str, lines: &[(String, &Histogram)]) -> Result<(), DrawError> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let lines: Vec<(&str, Vec<(f64, f64)>)> =
        lines.iter().map(|(name, histogram)| (name.as_str(), points(histogram))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let x_max = all().map(|point| point.0).fold(100.0, f64::max);
    let y_max = all().map(|point| point.1).fold(10.0, f64::max);
    let y_min = all().map(|point| point.1).fold(y_max, f64::min);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(80)
        .build_cartesian_2d((1.0..x_max).log_scale(), (y_min * 0.8..y_max * 1.25).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("microseconds from when it was due")
        .x_label_formatter(&|x| format!("p{}", percentile(*x)))
        .y_label_formatter(&|y| format!("{y}"))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = Palette99::pick(at).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The percentile that 1 / (1 - quantile) stands for, as people write it.
fn percentile(x: f64) -> String {
    let text = format!("{:.6}", 100.0 - 100.0 / x);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn percentiles_are_written_as_people_do() {
        let texts = [1.0, 2.0, 10.0, 100.0, 1_000.0, 100_000.0].map(percentile);
        assert_eq!(texts, ["0", "50", "90", "99", "99.9", "99.999"]);
    }

    #[test]
    fn the_picture_has_a_line_for_each_kind_of_latency() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plot.svg");
        let mut tally = Tally::new(None, true);
        for at in 0..5_000_u64 {
            tally.answered(Profile::Maker, at % 3 > 0, at * 1_000_000, at * 1_001_000);
            tally.answered(Profile::Taker, true, at * 1_000_000, at * 1_000_000 + 7_000);
        }
        write(&path, "a <run>", &tally).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in
            ["order-to-ack", "cancel-to-ack", "maker", "taker", "under attack", "a &lt;run&gt;"]
        {
            assert!(svg.contains(text), "no {text} in\n{svg}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let missing = write(&directory.path().join("no/where.svg"), "x", &tally);
        assert!(matches!(missing, Err(LoadError::Plot { .. })));
    }

    #[test]
    fn a_run_without_answers_has_a_picture_too() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("plot.svg"), "empty", &Tally::new(None, false)).unwrap();
    }
}
