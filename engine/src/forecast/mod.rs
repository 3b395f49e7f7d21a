//! Forecasts of what instances will use, off the hot path: series in, quantiles out.
//!
//! In reading order: [`past`] (a series at equal steps, with its running sums), [`models`] and [`stl`]
//! (what is known of one series alone), [`features`] (what a moment of a series looks like), [`forest`]
//! (quantiles learnt across series), [`choice`] (which of them serves a series, by rolling backtest, and
//! how wide its intervals must be), [`series`] (what was used, compacted), [`store`] (where that outlasts the
//! daemon), [`service`] (the thread that does it), [`history`] (what it is asked about what was). Floats are fine here: results enter the machine as integers of
//! sequenced commands, so that a replay needs no forecaster. A forecast is advice: nothing breaks without
//! it.

pub mod choice;
pub mod features;
pub mod forest;
pub mod history;
pub mod models;
pub mod past;
pub mod series;
pub mod service;
pub mod stl;
pub mod store;

/// What share of the future lies below each value of a forecast: 95% and 80% intervals, quartiles
/// and the median.
pub const LEVELS: [f32; 7] = [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975];
/// Which of [`LEVELS`] is the median.
pub const MEDIAN: usize = 3;

/// A forecast of a step: what it will be, at each of [`LEVELS`].
pub type Quantiles = [f32; LEVELS.len()];
