//! A demo agent: one per tenant. It measures what its process really used, expects that to go on,
//! and offers credits it will not need or bids for those it will. Own orders are taken back before
//! new ones go out, so they never pile up.

use super::stage::Stage;
use super::{Failure, Shared};
use hvctl::meter::Meter;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::Side;
use vendue_wire::message::{
    Accepted, BookRow, Cancel, InstanceRow, NewOrder, QueryBooks, QueryInstances,
};

/// Time between decisions.
const STEP: Duration = Duration::from_millis(200);
/// Weight of the newest measurement in the expected use, percent.
const NEWEST_PERCENT: u64 = 30;
/// Seconds ahead that an agent plans for.
const HORIZON_S: i64 = 6;
/// Expected seconds of baseline above which credits are offered.
const PLENTY_S: i64 = 12;
/// Expected seconds of baseline below which credits are wanted.
const SCARCE_S: i64 = 6;
/// Price asked for plenty, in ticks, when nothing was traded yet.
const PRICE_TICKS: u32 = 100;
/// Answers taken in one step at most.
const ANSWERS_MAX: usize = 4096;
/// The book of bronze CPU.
pub const BOOK: u16 = 0;

/// What an agent saw last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Measured use, percent of a CPU.
    pub used_percent: u64,
    /// Credits free.
    pub credits: u64,
    /// VRUs it may use now.
    pub entitled_vru: u32,
    /// What it is doing in the market.
    pub side: Option<Side>,
}

/// An agent.
pub struct Agent {
    at: usize,
    instance: u32,
    baseline_vru: u32,
    client: Client,
    meter: Meter,
    shared: Arc<Shared>,
    measured_at: Instant,
    /// Expected use, milli-VRUs.
    expected: u64,
    /// Own open order.
    handle: Option<u64>,
}

impl Agent {
    /// An agent for the tenant at `at`, with a session of its own.
    ///
    /// # Errors
    /// The daemon does not let it in, or its process is gone.
    pub fn new(at: usize, stage: &Stage, shared: Arc<Shared>) -> Result<Agent, Failure> {
        let tenant = &stage.tenants[at];
        let identity = Identity { cancel_on_disconnect: true, ..Identity::tenant(tenant.account) };
        Ok(Agent {
            at,
            instance: tenant.instance,
            baseline_vru: tenant.baseline_vru,
            client: Client::connect(&stage.endpoint, &identity)?,
            meter: Meter::process(tenant.process.id())?,
            shared,
            measured_at: Instant::now(),
            expected: 0,
            handle: None,
        })
    }

    /// Trades until the demo is over.
    ///
    /// # Errors
    /// The connection or the process is gone.
    pub fn run(&mut self) -> Result<(), Failure> {
        while !self.shared.over.load(Ordering::Relaxed) {
            std::thread::sleep(STEP);
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Failure> {
        let used_percent = self.measure()?;
        self.listen()?;
        self.take_back()?;
        let instance: Option<InstanceRow> = self
            .client
            .ask(&QueryInstances { from: self.instance.into() })?
            .into_iter()
            .find(|row: &InstanceRow| row.instance.get() == self.instance);
        let Some(instance) = instance else { return Err("the instance is gone".into()) };
        let free_milli = instance.free_millicredits[0].get();
        let books: Vec<BookRow> = self.client.ask(&QueryBooks { from: u32::from(BOOK).into() })?;
        let last = books.first().map_or(0, |book| book.last_ticks.get());
        let side = self.decide(free_milli, last)?;
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen[self.at] = Seen {
            used_percent,
            credits: free_milli / 1000,
            entitled_vru: instance.entitled_vru[0].get(),
            side,
        };
        Ok(())
    }

    /// Measures the process; returns percent of a CPU since the last step.
    fn measure(&mut self) -> Result<u64, Failure> {
        let used = self.meter.sample()?;
        let elapsed_us = self.measured_at.elapsed().as_micros().max(1) as u64;
        self.measured_at = Instant::now();
        // 10 millicores are a VRU: a whole CPU is 100 of them, 100,000 milli-VRUs.
        let now = used.cpu_us * 100_000 / elapsed_us;
        self.expected = (now * NEWEST_PERCENT + self.expected * (100 - NEWEST_PERCENT)) / 100;
        Ok(used.cpu_us * 100 / elapsed_us)
    }

    /// Takes in what happened to its orders meanwhile.
    fn listen(&mut self) -> Result<(), ClientError> {
        for _ in 0..ANSWERS_MAX {
            if self.client.try_recv()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn take_back(&mut self) -> Result<(), Failure> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        match self
            .client
            .call_for::<vendue_wire::message::Cancelled, _>(&Cancel { handle: handle.into() })
        {
            // Filled meanwhile: there is nothing left to take back.
            Ok(_) | Err(ClientError::Rejected { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Offers, bids, or does nothing; prices follow the last trade and the urgency.
    fn decide(&mut self, free_milli: u64, last: u32) -> Result<Option<Side>, Failure> {
        let baseline = i64::from(self.baseline_vru);
        let drain = self.expected as i64 / 1000 - baseline;
        let expected = free_milli as i64 / 1000 - drain * HORIZON_S;
        let last = i64::from(if last == 0 { PRICE_TICKS } else { last });
        let (plenty, scarce) = (PLENTY_S * baseline, SCARCE_S * baseline);
        if expected > plenty {
            let surplus = (expected - plenty).min(free_milli as i64 / 1000 / 2);
            let price = last - last * (surplus.min(plenty)) / (8 * plenty).max(1);
            self.order(Side::Sell, price, surplus)?;
            Ok(Some(Side::Sell))
        } else if expected < scarce {
            let lack = scarce - expected;
            let price = last + 1 + last * lack.min(scarce) / (8 * scarce).max(1);
            self.order(Side::Buy, price, lack)?;
            Ok(Some(Side::Buy))
        } else {
            Ok(None)
        }
    }

    /// Sends an order and measures how long its answer takes.
    fn order(&mut self, side: Side, price: i64, quantity: i64) -> Result<(), Failure> {
        let quantity = quantity.clamp(0, 10_000) as u32;
        if quantity == 0 {
            return Ok(());
        }
        let order = NewOrder {
            client_id: self.client.next_client_id().into(),
            instance: self.instance.into(),
            price_ticks: (price.clamp(1, 4095) as u32).into(),
            quantity: quantity.into(),
            book: BOOK.into(),
            side: side as u8,
            ..NewOrder::zeroed()
        };
        let sent = Instant::now();
        match self.client.call_for::<Accepted, _>(&order) {
            Ok(accepted) => self.handle = Some(accepted.handle.get()),
            // Out of funds or credits since it looked: the next step looks again.
            Err(ClientError::Rejected { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let took = sent.elapsed().as_nanos() as u64;
        let mut latency = self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.saturating_record(took);
        Ok(())
    }
}
