//! A demo agent: one per tenant. It measures what its process really used and decides as
//! `hvctl agent` does, only sooner. Own orders are taken back before new ones go out, so that the
//! order-to-answer latency is that of new orders.

use super::stage::Stage;
use super::{Failure, Shared};
use hvctl::agent::keep::Order;
use hvctl::agent::predict::{demand_milli_vru, falling_weights};
use hvctl::agent::price::{Band, Policy};
use hvctl::agent::{Agent as Decider, Settings, Situation};
use hvctl::meter::Meter;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{Resource, Side};
use vendue_wire::message::{
    Accepted, BookRow, Cancel, InstanceRow, NewOrder, QueryBooks, QueryInstances,
};

/// Time between decisions.
const STEP: Duration = Duration::from_millis(200);
/// Samples in the moving average of the use: a second's.
const WINDOW: usize = 5;
/// Millicores of a VRU.
const VRU_SIZE: u64 = 10;
/// Credits in one order at most.
const QUANTITY_MAX: u32 = 10_000;
/// Answers taken in one step at most.
const ANSWERS_MAX: usize = 4096;
/// The book of bronze CPU.
pub const BOOK: u16 = 0;

/// Plans for seconds, where a real one plans for minutes; thresholds are seconds of baseline.
fn settings() -> Settings {
    Settings {
        horizon_s: 6,
        offer_above_s: 12,
        request_below_s: 6,
        weights: falling_weights(WINDOW),
        policy: Policy::Last,
        band: Band { low_ticks: 50, high_ticks: 150 },
    }
}

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
    decider: Decider,
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
            decider: Decider::new(settings(), None)?,
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
        let Some(book) = books.first() else { return Err("the book is gone".into()) };
        let order = self.decide(free_milli, book);
        if let Some(order) = order {
            self.order(order)?;
        }
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen[self.at] = Seen {
            used_percent,
            credits: free_milli / 1000,
            entitled_vru: instance.entitled_vru[0].get(),
            side: order.map(|order| order.side),
        };
        Ok(())
    }

    /// Measures the process; returns percent of a CPU since the last step.
    fn measure(&mut self) -> Result<u64, Failure> {
        let used = self.meter.sample()?;
        let elapsed_us = self.measured_at.elapsed().as_micros().max(1) as u64;
        self.measured_at = Instant::now();
        let demand = demand_milli_vru(Resource::Cpu, &used, elapsed_us, VRU_SIZE);
        self.decider.observe(demand.unwrap_or(0));
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

    /// What to offer or to request, if anything. Whether the funds reach, the daemon says.
    fn decide(&self, balance_millicredits: u64, book: &BookRow) -> Option<Order> {
        let seen = Situation {
            baseline_vru: self.baseline_vru,
            balance_millicredits,
            funds_micro: u64::MAX,
            tick_micro: book.tick_micro.get(),
            price_ticks_max: book.price_ticks_max.get(),
            last_ticks: book.last_ticks.get(),
            ..Situation::default()
        };
        self.decider.decide(&seen)?.order
    }

    /// Sends an order and measures how long its answer takes.
    fn order(&mut self, order: Order) -> Result<(), Failure> {
        let order = NewOrder {
            client_id: self.client.next_client_id().into(),
            instance: self.instance.into(),
            price_ticks: order.price_ticks.into(),
            quantity: order.quantity.min(QUANTITY_MAX).into(),
            book: BOOK.into(),
            side: order.side as u8,
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
