//! Asks the daemon, on a thread of its own: a bounded number of questions at each look. What does not
//! fit into one look is asked for at the next ones, in turn.

use super::known::{Page, Stretch};
use super::state::View;
use crate::cli::door::{Door, Reach, Trouble};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use vendue_wire::message::*;

/// Pages asked for at a look, of what there may be thousands of: rows of 16 or 32 a page.
const PAGES_MAX: usize = 16;
/// Pages asked for at a look, of what there is less of.
const FEW_PAGES_MAX: usize = 4;
/// While nobody asks, the session is kept alive so often.
const IDLE: Duration = Duration::from_secs(1);

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Table that is shown.
    pub view: View,
    /// Instance that is shown alone.
    pub one: Option<u32>,
    /// Book whose depth is shown.
    pub book: Option<u16>,
}

/// Where the next page of each kind starts.
#[derive(Debug, Default)]
struct Cursors {
    accounts: u64,
    books: u64,
    markets: u64,
    rents: u64,
    instances: u64,
    sensors: u64,
    limits: u64,
    leases: u64,
    objectives: u64,
    tasks: u64,
    groups: u64,
}

/// Who asks.
#[derive(Debug)]
pub struct Asker {
    reach: Reach,
    door: Option<Door>,
    cursors: Cursors,
}

impl Asker {
    /// One that has a session.
    ///
    /// # Errors
    /// The daemon cannot be reached.
    pub fn connect(reach: Reach) -> Result<Asker, Trouble> {
        let door = Some(reach.reader()?);
        Ok(Asker { reach, door, cursors: Cursors::default() })
    }

    /// Answers each wish once, until nobody wishes or `tell` says that nobody listens.
    pub fn run(
        mut self,
        wishes: &Receiver<Wish>,
        tell: impl Fn(Result<Vec<Page>, Trouble>) -> bool,
    ) {
        loop {
            match wishes.recv_timeout(IDLE) {
                Ok(wish) => {
                    let answer = self.look(wish);
                    if answer.is_err() {
                        self.door = None;
                    }
                    if !tell(answer) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sends a heartbeat that is due. That the daemon is gone, the next look tells.
    fn idle(&mut self) {
        if let Some(door) = &mut self.door {
            let _ = door.client.recv(Duration::ZERO);
        }
    }

    fn look(&mut self, wish: Wish) -> Result<Vec<Page>, Trouble> {
        let door = match &mut self.door {
            Some(door) => door,
            none => none.insert(self.reach.reader()?),
        };
        let mut look = Look { door, pages: Vec::new() };
        look.whole(wish, &mut self.cursors)?;
        if let Some(instance) = wish.one {
            look.one(instance)?;
        }
        Ok(look.pages)
    }
}

/// One look, and what came of it so far.
struct Look<'a> {
    door: &'a mut Door,
    pages: Vec<Page>,
}

impl Look<'_> {
    /// What every view shows, and what this one does.
    fn whole(&mut self, wish: Wish, at: &mut Cursors) -> Result<(), Trouble> {
        let (many, few) = (PAGES_MAX, FEW_PAGES_MAX);
        self.status()?;
        let tiers = self.door.rows(&QueryTiers {})?;
        self.pages.push(Page::Tiers(tiers));
        self.sweep(&mut at.books, few, |from| QueryBooks { from }, Page::Books)?;
        self.sweep(&mut at.accounts, few, |from| QueryAccounts { from }, Page::Accounts)?;
        self.sweep(&mut at.instances, many, |from| QueryInstances { from }, Page::Instances)?;
        // Also where they are not shown: their history is to have no gaps.
        self.sweep(&mut at.sensors, many, |from| QuerySensors { from }, Page::Sensors)?;
        if wish.view != View::Tasks || wish.one.is_some() {
            self.sweep(&mut at.rents, few, |from| QueryRents { from }, Page::Rents)?;
        }
        if matches!(wish.view, View::Instances | View::Leases) || wish.one.is_some() {
            self.sweep(&mut at.leases, many, |from| QueryLeases { from }, Page::Leases)?;
        }
        if wish.one.is_some() {
            let query = |from| QueryObjectives { from };
            return self.sweep(&mut at.objectives, many, query, Page::Objectives);
        }
        match wish.view {
            View::Instances => {
                self.sweep(&mut at.limits, many, |from| QueryLimits { from }, Page::Limits)
            }
            View::Market => {
                self.sweep(&mut at.markets, few, |from| QueryMarket { from }, Page::Markets)?;
                self.depth(wish.book)
            }
            View::Leases => Ok(()),
            View::Tasks => {
                self.sweep(&mut at.groups, few, |from| QueryGroups { from }, Page::Groups)?;
                self.sweep(&mut at.tasks, many, |from| QueryTasks { from }, Page::Tasks)
            }
        }
    }

    /// What is shown of an instance alone, whether or not its turn has come.
    fn one(&mut self, instance: u32) -> Result<(), Trouble> {
        let from: &mut u64 = &mut instance.into();
        self.sweep(&mut from.clone(), 1, |from| QueryInstances { from }, Page::Instances)?;
        self.sweep(&mut from.clone(), 1, |from| QuerySensors { from }, Page::Sensors)?;
        self.sweep(from, 1, |from| QueryLimits { from }, Page::Limits)?;
        let mut orders = Vec::new();
        let query = |from| QueryOrders { instance: instance.into(), from };
        for stretch in sweep::<OrderRow, _>(self.door, &mut 0, FEW_PAGES_MAX, query)? {
            orders.extend(stretch.rows);
        }
        self.pages.push(Page::Orders(instance, orders));
        Ok(())
    }

    fn status(&mut self) -> Result<(), Trouble> {
        let mut status = None;
        let mut faults = Vec::new();
        self.door.each(&QueryStatus {}, |row| {
            status = status.or(row.message::<StatusRow>().copied());
            faults.extend(row.message::<FaultRow>().copied());
        })?;
        self.pages.extend(status.map(|status| Page::Status(status, faults)));
        Ok(())
    }

    fn depth(&mut self, book: Option<u16>) -> Result<(), Trouble> {
        let Some(book) = book else { return Ok(()) };
        let query = QueryDepth { book: book.into(), reserved: 0.into() };
        self.pages.extend(self.door.rows(&query)?.first().copied().map(Page::Depth));
        Ok(())
    }

    fn sweep<R: Body, Q: Body>(
        &mut self,
        from: &mut u64,
        pages_max: usize,
        query: impl Fn(U32) -> Q,
        page: impl Fn(Stretch<R>) -> Page,
    ) -> Result<(), Trouble> {
        let stretches = sweep(self.door, from, pages_max, query)?;
        self.pages.extend(stretches.into_iter().map(page));
        Ok(())
    }
}

/// The next pages of a query's answer, at most so many; after the last page the first is the next.
fn sweep<R: Body, Q: Body>(
    door: &mut Door,
    from: &mut u64,
    pages_max: usize,
    query: impl Fn(U32) -> Q,
) -> Result<Vec<Stretch<R>>, Trouble> {
    let mut stretches = Vec::new();
    for _ in 0..pages_max {
        let first = *from;
        let mut rows = Vec::new();
        // Pages of these queries start at numbers of 32 bits.
        let asked = U32::new(u32::try_from(first).unwrap_or(u32::MAX));
        let next = door.each(&query(asked), |row| rows.extend(row.message::<R>()))?;
        // Pages go forward, or there would be no last one.
        let next = next.filter(|&next| next > first);
        stretches.push(Stretch { from: first, next, rows });
        *from = next.unwrap_or(0);
        if next.is_none() {
            break;
        }
    }
    Ok(stretches)
}
