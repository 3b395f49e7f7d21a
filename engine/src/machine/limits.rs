//! Limits: whom an account may trade with, and how much. Set by operators ([`SetLimits`]).
//!
//! **Whom.** Until an account has opted in, the masks that matching reads are empty: nothing is
//! asked on the way of an order.
//!
//! **How much.** What an account sells, and what it buys, from all books together, is limited in
//! windows of `limit_window_s` that begin at multiples of it since 1970 UTC. An order is let in only
//! if it, the open orders of its side and what was traded in this window stay within the limit
//! together. Fills move credits from open to traded, cancels take them away, and a new window begins
//! with nothing traded: so whatever is let in may trade in full, in any window, and no fill ever
//! passes the limit. The position counts all credits of the account's instances, and all that its
//! open orders want; only orders that buy are held to it.
//!
//! **Cost.** Only orders of accounts with limits come here: their instances carry a bit in a word
//! that an order reads anyway ([`Instance::LIMITED`]), and the ranges of their pockets are empty, so
//! that every change of these goes the way of those from which something follows
//! ([`Pocket::flips`](super::ledger::Pocket::flips)).

use super::Machine;
use super::command::{Envelope, Style};
use super::config::{MILLI, RESOURCES};
use super::event::{Events, Fill, Outbox};
use super::orders::{check_terms, limit_of};
use super::slab::{Node, Tag};
use super::tables::Instance;
use vendue_wire::code::{CancelReason, Reject, Resource, Side};
use vendue_wire::message::{
    ANY_BOOK, Accepted, Body, CancelAccount, Cancelled, NewOrder, Replaced, SetLimits, UNLIMITED,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// What an account may do, and how far it has gone. Pairs are by side: buy, sell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Limits {
    /// Groups it sells to once it has opted in.
    pub sells_to: u64,
    /// Groups it buys from once it has opted in.
    pub buys_from: u64,
    /// 1: it swaps credits with other accounts.
    pub opted_in: u64,
    /// Credits in a window at most.
    pub window_max: [u64; 2],
    /// Micro-units of an order at most.
    pub order_max_micro: u64,
    /// Credits held and wanted at most.
    pub position_max: u64,
    /// The window that `traded` is of.
    pub window: u64,
    /// Credits traded in that window.
    pub traded: [u64; 2],
    /// Credits that its open orders want and offer; kept only while there are limits.
    pub open: [u64; 2],
}

impl Limits {
    /// None, and opted in: what an account begins with.
    pub fn none(sells_to: u64, buys_from: u64) -> Limits {
        Limits {
            sells_to,
            buys_from,
            opted_in: 1,
            window_max: [UNLIMITED; 2],
            order_max_micro: UNLIMITED,
            position_max: UNLIMITED,
            window: 0,
            traded: [0; 2],
            open: [0; 2],
        }
    }

    /// True if there is one.
    pub fn are_set(&self) -> bool {
        let all = [self.window_max[0], self.window_max[1], self.order_max_micro, self.position_max];
        all.iter().any(|&most| most != UNLIMITED)
    }

    /// Credits traded in a window, if that is the present one.
    pub fn traded_in(&self, window: u64) -> [u64; 2] {
        if self.window == window { self.traded } else { [0; 2] }
    }
}

/// An order as limits look at it.
pub(super) struct Wish {
    pub book: usize,
    pub side: Side,
    pub price: u16,
    pub quantity: u32,
    /// Credits of the open order that it takes the place of.
    pub released: u32,
}

impl Machine {
    /// An account's limits, to read.
    pub fn limits(&self, account: u32) -> Option<&Limits> {
        self.limits[..self.accounts_used as usize].get(account as usize)
    }

    /// The number of the present window.
    pub fn limit_window(&self) -> u64 {
        self.time_ns / (u64::from(self.genesis.limit_window_s.get()) * SECOND_NS)
    }

    /// When the present window ends, nanoseconds since 1970 UTC.
    pub fn limit_window_ends_ns(&self) -> u64 {
        let window_ns = u64::from(self.genesis.limit_window_s.get()) * SECOND_NS;
        (self.limit_window() + 1).saturating_mul(window_ns)
    }

    pub(super) fn set_limits(
        &mut self,
        env: &Envelope,
        m: &SetLimits,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        self.use_client_id(env, client_id);
        let (before, window) = (self.limits[usize::from(account)], self.limit_window());
        let mut row = Limits {
            opted_in: m.opted_in.into(),
            window_max: [m.buy_max_credits.get(), m.sell_max_credits.get()],
            order_max_micro: m.order_max_micro.get(),
            position_max: m.position_max_credits.get(),
            ..Limits::none(m.sells_to.get(), m.buys_from.get())
        };
        if row.are_set() {
            (row.window, row.traded) = (window, before.traded_in(window));
            row.open = self.open_by_side(account);
        }
        self.limits[usize::from(account)] = row;
        let masks = if m.opted_in == 1 { [row.sells_to, row.buys_from] } else { [0; 2] };
        let known = &mut self.accounts[usize::from(account)];
        [known.sells_to, known.buys_from] = masks;
        known.group = m.group.into();
        masks.into_iter().for_each(|mask| self.fold(mask));
        self.watch(account);
        let cancelled = self.cancel_beyond(env, account, window, out);
        self.report_done(env, SetLimits::KIND, client_id, cancelled, out);
        Ok(())
    }

    /// Marks the account's instances, and makes its pockets say of every change that something
    /// follows; or takes both back.
    pub(super) fn watch(&mut self, account: u16) {
        let limited = self.limits[usize::from(account)].are_set();
        for instance in 0..self.instances.len() {
            let row = &mut self.instances[instance];
            if row.live == 1 && row.account == account {
                row.bursting &= !Instance::LIMITED;
                row.bursting |= if limited { Instance::LIMITED } else { 0 };
                self.find_edges(instance as u16);
            }
        }
        let funds = &mut self.ledger.pockets_mut()[Side::Buy as usize][usize::from(account)];
        funds.stay_within(0, if limited { 0 } else { u64::MAX });
    }

    /// Credits that the account's open orders want and offer.
    pub(super) fn open_by_side(&self, account: u16) -> [u64; 2] {
        let mut open = [0; 2];
        for slot in self.slab.orders(0, |owner| self.owner[usize::from(owner)] == account) {
            let node = &self.slab.nodes[slot as usize];
            open[node.tag.side()] += u64::from(node.quantity);
        }
        open
    }

    /// Cancels the account's orders of a side that no longer fit its window; returns how many.
    fn cancel_beyond(
        &mut self,
        env: &Envelope,
        account: u16,
        window: u64,
        out: &mut Outbox,
    ) -> u64 {
        let row = self.limits[usize::from(account)];
        let traded = row.traded_in(window);
        let beyond =
            |side: usize| row.open[side].saturating_add(traded[side]) > row.window_max[side];
        if !beyond(0) && !beyond(1) {
            return 0;
        }
        let own = |machine: &Machine, owner: u16| machine.owner[usize::from(owner)] == account;
        let wanted = |node: &Node| beyond(node.tag.side());
        self.cancel_where(env, CancelReason::LimitsChanged, out, own, wanted)
    }

    pub(super) fn cancel_account(
        &mut self,
        env: &Envelope,
        m: &CancelAccount,
        side: Option<Side>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let book = m.book.get();
        if book != ANY_BOOK && usize::from(book) >= self.books.len() {
            return Err(Reject::UnknownBook);
        }
        self.use_client_id(env, client_id);
        let own = |machine: &Machine, owner: u16| machine.owner[usize::from(owner)] == account;
        let wanted = |node: &Node| {
            (book == ANY_BOOK || node.tag.book() == usize::from(book))
                && side.is_none_or(|side| side as usize == node.tag.side())
        };
        let cancelled = self.cancel_where(env, CancelReason::MassCancel, out, own, wanted);
        self.report_done(env, CancelAccount::KIND, client_id, cancelled, out);
        Ok(())
    }

    /// Milli-credits of all the account's instances, free and held.
    fn credits_of(&self, account: u16) -> u128 {
        let own = |at: &usize| self.owner[*at] == account && self.instances[*at].live == 1;
        let pockets = (0..self.instances.len())
            .filter(own)
            .flat_map(|at| &self.ledger.credits()[at * RESOURCES..(at + 1) * RESOURCES]);
        pockets.map(|p| u128::from(p.balance.free) + u128::from(p.balance.held)).sum()
    }

    /// Refuses an order that its account's limits do not allow. A sale is worth what the best buyer
    /// pays, if that is more than its own price.
    pub(super) fn check_limits(&self, account: u16, wish: &Wish) -> Result<(), Reject> {
        let row = &self.limits[usize::from(account)];
        let book = &self.books[wish.book];
        let (side, quantity) = (wish.side as usize, u64::from(wish.quantity));
        let price = match wish.side {
            Side::Buy => wish.price,
            Side::Sell => wish.price.max(book.best(Side::Buy)),
        };
        // Cannot overflow within the book's bounds.
        if u64::from(price) * book.tick_micro * quantity > row.order_max_micro {
            return Err(Reject::OrderValueLimit);
        }
        let open = row.open[side] - u64::from(wish.released) + quantity;
        let traded = row.traded_in(self.limit_window())[side];
        if traded.saturating_add(open) > row.window_max[side] {
            return Err(Reject::WindowLimit);
        }
        if wish.side == Side::Buy && row.position_max != UNLIMITED {
            let [open, most] = [open, row.position_max].map(|it| u128::from(it) * MILLI as u128);
            if self.credits_of(account) + open > most {
                return Err(Reject::PositionLimit);
            }
        }
        Ok(())
    }

    /// An order of an account with limits: checked against them first, then as any other.
    #[cold]
    pub(super) fn let_in_limited(
        &mut self,
        env: &Envelope,
        m: &NewOrder,
        side: Side,
        style: Style,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let instance = m.instance.get() as usize;
        let (account, tier) = (self.owner[instance], self.instances[instance].tier);
        let (book, quantity) = (usize::from(m.book.get()), m.quantity.get());
        // Terms that make no sense are refused as anybody's are.
        if let Some(row) = self.books.get(book).filter(|row| row.tier == tier)
            && let Ok(price) = check_terms(row, limit_of(m, side, style), quantity)
        {
            self.check_limits(account, &Wish { book, side, price, quantity, released: 0 })?;
        }
        let said = out.bytes().len();
        self.limits[usize::from(account)].open[side as usize] += u64::from(quantity);
        let result = self.let_in::<true>(env, m, side, style, out);
        match result {
            Ok(()) => self.follow_entry(account, side, &out.bytes()[said..]),
            Err(_) => self.limits[usize::from(account)].open[side as usize] -= u64::from(quantity),
        }
        result
    }

    /// Takes in what became of an order when it entered, by what was said since.
    pub(super) fn follow_entry(&mut self, account: u16, side: Side, said: &[u8]) {
        let mut handle = None;
        for event in Events::new(said) {
            if let Some(m) = event.read::<Accepted>() {
                handle = Some(m.handle);
            } else if let Some(m) = event.read::<Replaced>() {
                handle = Some(m.handle);
            } else if let Some(m) = event.read::<Fill>() {
                if handle == Some(m.taker_handle) {
                    self.note_traded(account, side, m.quantity.get());
                }
            } else if let Some(m) = event.read::<Cancelled>()
                && handle == Some(m.handle)
            {
                let open = &mut self.limits[usize::from(account)].open[side as usize];
                *open -= u64::from(m.quantity.get());
            }
        }
    }

    /// What was open has traded.
    fn note_traded(&mut self, account: u16, side: Side, quantity: u32) {
        let window = self.limit_window();
        let row = &mut self.limits[usize::from(account)];
        (row.traded, row.window) = (row.traded_in(window), window);
        row.open[side as usize] -= u64::from(quantity);
        let traded = &mut row.traded[side as usize];
        *traded = traded.saturating_add(quantity.into());
    }

    /// An open order has left its book, or part of it, without having traded.
    pub(super) fn note_gone(&mut self, tag: Tag, quantity: u32) {
        let instance = usize::from(tag.instance());
        if self.instances[instance].is_limited() {
            let row = &mut self.limits[usize::from(self.owner[instance])];
            row.open[tag.side()] -= u64::from(quantity);
        }
    }

    /// An open order is about to be replaced by one of this quantity.
    pub(super) fn note_replaced(&mut self, node: &Node, quantity: u32) {
        let instance = usize::from(node.tag.instance());
        if self.instances[instance].is_limited() {
            let row = &mut self.limits[usize::from(self.owner[instance])];
            let open = &mut row.open[node.tag.side()];
            *open = *open - u64::from(node.quantity) + u64::from(quantity);
        }
    }

    /// The order that rested in the trade said last, whose pocket says that something follows.
    #[cold]
    pub(super) fn follow_maker(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        let traded = out.latest::<Fill>().map(|m| (m.taker_side().opposite(), m.quantity.get()));
        match traded {
            Some((side, quantity)) => self.follow_trade(instance, side, quantity, resource, out),
            None => self.flip(instance, resource, out),
        }
    }

    /// An order that rested has traded, and its pocket says that something follows.
    #[cold]
    pub(super) fn follow_trade(
        &mut self,
        instance: u16,
        side: Side,
        quantity: u32,
        resource: Resource,
        out: &mut Outbox,
    ) {
        if self.instances[usize::from(instance)].is_limited() {
            self.note_traded(self.owner[usize::from(instance)], side, quantity);
        }
        self.flip(instance, resource, out);
    }

    /// An order of so much was cancelled, and its pocket says that something follows. By value: a
    /// reference would have every cancel put its node into memory.
    #[cold]
    pub(super) fn follow_cancel(
        &mut self,
        tag: Tag,
        quantity: u32,
        resource: Resource,
        out: &mut Outbox,
    ) {
        self.note_gone(tag, quantity);
        self.flip(tag.instance(), resource, out);
    }

    /// True if every account's limits say what its instances and orders do: of a snapshot.
    pub(super) fn limits_are_whole(&self) -> bool {
        self.instances.iter().all(|row| {
            let limited = row.live == 1 && self.limits[usize::from(row.account)].are_set();
            row.is_limited() == limited
        }) && (0..self.accounts_used as u16).all(|account| {
            let row = &self.limits[usize::from(account)];
            row.opted_in <= 1 && (!row.are_set() || row.open == self.open_by_side(account))
        })
    }
}
