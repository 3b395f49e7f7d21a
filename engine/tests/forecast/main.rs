//! The models of a single series, beside what statsmodels makes of the same (`reference.py`).

use vendue_engine::forecast::choice::{Server, backtest, pinball};
use vendue_engine::forecast::features::{Grid, Moment};
use vendue_engine::forecast::forest::{Forest, Growth, Rows};
use vendue_engine::forecast::models::{Arima, Fitted, Model, Smoothing};
use vendue_engine::forecast::past::Past;
use vendue_engine::forecast::stl::{Mstl, stl};

const DAY: usize = 24;
const STEPS: usize = 12;

fn reference(name: &str) -> Vec<f64> {
    let line = include_str!("reference.txt")
        .lines()
        .find(|line| line.split_once(' ').is_some_and(|(of, _)| of == name));
    let values = line.unwrap_or_else(|| panic!("no line {name}")).split(' ').skip(1);
    values.map(|value| value.parse().expect("a number")).collect()
}

#[track_caller]
fn near(ours: &[f64], name: &str, tolerance: f64) {
    let theirs = reference(name);
    assert_eq!(ours.len(), theirs.len());
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!((ours - theirs).abs() <= tolerance, "{name}, {at}: {ours} beside {theirs}");
    }
}

#[test]
fn smoothing_says_what_statsmodels_says() {
    let values = reference("series");
    let mut smoothing = Smoothing { alpha: 0.3, beta: 0.0, gamma: 0.0, damped: 0.0, season: 0 };
    near(&smoothing.ahead(&values, STEPS), "ewma", 1e-6);
    (smoothing.beta, smoothing.damped) = (0.1, 0.9);
    near(&smoothing.ahead(&values, STEPS), "trend", 1e-6);
    (smoothing.gamma, smoothing.season) = (0.2, DAY);
    near(&smoothing.ahead(&values, STEPS), "holt-winters", 1e-6);
}

#[test]
fn seasons_are_those_of_statsmodels() {
    let values = reference("series");
    near(&stl(&values, DAY, 11), "stl", 1e-6);
    let mstl = Mstl::of(&values, &[DAY, 7 * DAY]);
    let count = values.len() as isize;
    let seasons: Vec<f64> = (0..count).map(|at| mstl.season(at - count)).collect();
    near(&seasons, "mstl", 1e-6);
    // And they go on as they last were.
    assert_eq!(mstl.season(0), mstl.season(7 * DAY as isize));
}

#[test]
fn arima_is_estimated_and_goes_on_as_in_statsmodels() {
    let values = reference("noise");
    for (differenced, name) in [(true, "arima"), (false, "arma")] {
        let arima = Arima::estimate(&values, differenced).expect("enough values");
        let weights: Vec<f64> = arima.lags.into_iter().chain(arima.shocks).collect();
        // Their long autoregression is by Yule and Walker, ours by least squares.
        near(&weights, &format!("{name}.weights"), 1e-2);
        let [one, two, shock] = reference(&format!("{name}.weights"))[..] else { panic!("three") };
        let theirs = Arima { lags: [one, two], shocks: [shock], ..arima };
        // Theirs starts from what such series are like, ours from nothing: 400 values ago.
        near(&theirs.ahead(&values, STEPS), &format!("{name}.ahead"), 1e-6);
    }
}

#[test]
fn a_forecast_knows_nothing_of_what_is_still_to_come() {
    let grid = Grid { steps: STEPS, day: DAY };
    let values: Vec<f32> = reference("series").iter().map(|value| *value as f32).collect();
    let known = values.len() - 50;
    let mut other = values.clone();
    other[known..].fill(1e6);
    let pasts = [Past::new(values), Past::new(other)];
    for model in Model::ALL {
        let said = pasts.each_ref().map(|past| {
            let fitted: Fitted = model.fit(past, known, grid).expect("enough values");
            fitted.ahead(past, known, STEPS)
        });
        assert_eq!(said[0], said[1], "{}", model.text());
    }
    let moments = pasts.each_ref().map(|past| Moment::at(past, known, grid).features);
    assert_eq!(moments[0], moments[1]);
}

/// Use that bursts at random and dies away, a third of it each step, and always a little noise.
fn bursts(seed: u64, count: usize) -> Past {
    let (mut state, mut level) = (seed, 0.0_f32);
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut next = |_| {
        level *= 0.67;
        level += if draw() < 0.05 { 50.0 } else { 0.0 };
        10.0 + level + 4.0 * draw()
    };
    Past::new((0..count).map(&mut next).collect())
}

#[test]
fn intervals_hold_what_they_say_and_the_choice_beats_the_last_value() {
    let grid = Grid { steps: STEPS, day: DAY };
    let pasts: Vec<Past> = (0..20).map(|seed| bursts(seed, 900)).collect();
    let first = 600;
    let mut rows = Rows::new(grid);
    for past in &pasts {
        for known in (DAY..first - backtest(first, grid) - STEPS).step_by(2) {
            rows.add(past, known);
        }
    }
    let growth = Growth { trees: 20, rows: 3_000, leaf_rows: 40, tried: 16 };
    let forest = Forest::grow(rows.clone(), growth, 1).expect("enough rows");
    let same = Forest::grow(rows, growth, 1).expect("enough rows");
    let moment = Moment::at(&pasts[0], first, grid);
    assert_eq!(forest.quantiles(&moment), same.quantiles(&moment), "a seed is a forest");
    let (mut within, mut lost, mut lost_last, mut count) = ([0; 2], 0.0, 0.0, 0);
    for past in &pasts {
        let mut chosen = Server::choose(past, first, grid, Some(&forest));
        let (_, mut last) = Server::alone(Model::Last, past, first, grid).expect("enough values");
        for known in (first..=past.len() - STEPS).step_by(STEPS) {
            let came = &past.values()[known..known + STEPS];
            let said = chosen.forecast(past, known, Some(&forest));
            let beside = last.forecast(past, known, None);
            for ((said, beside), came) in said.iter().zip(&beside).zip(came) {
                assert!(said.is_sorted(), "{said:?}");
                within[0] += usize::from((said[1]..=said[5]).contains(came));
                within[1] += usize::from((said[0]..=said[6]).contains(came));
                lost += pinball(said, *came);
                lost_last += pinball(beside, *came);
                count += 1;
            }
            chosen.learn(&said, came);
            last.learn(&beside, came);
        }
    }
    let share = within.map(|within| within as f32 / count as f32);
    assert!((0.75..0.85).contains(&share[0]) && (0.92..0.98).contains(&share[1]), "{share:?}");
    assert!(lost < 0.87 * lost_last, "{lost} beside {lost_last}");
}
