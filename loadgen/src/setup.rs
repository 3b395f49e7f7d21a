//! Accounts and instances to trade with: found by name, made where missing, topped up.

use crate::steps::LADDER_MIN;
use crate::{LoadError, Options};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use vendue_wire::client::{ANSWER_TIMEOUT, Client, ClientError, Identity};
use vendue_wire::message::{
    AccountRow, Body, BookRow, CreateAccount, CreateInstance, Deposit, Done, GrantCredits,
    InstanceRow, NAME_BYTES, QueryAccounts, QueryBooks, QueryInstances, Refused, Rejected, field,
};

/// Free funds each account starts a run with, in micro-units.
const FUNDS_MICRO: u64 = 1_000_000_000_000_000;
/// Free credits each instance starts a run with, in milli-credits.
const MILLICREDITS: u64 = 1_000_000_000_000;
/// Requests sent before the answer to the first of them is waited for.
const WINDOW: usize = 128;

/// Who a session trades for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Account.
    pub account: u32,
    /// Instance.
    pub instance: u32,
}

/// Where a book of a flow file is traded, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowBook {
    /// The daemon's book.
    pub book: u16,
    /// Instance that buys.
    pub buyer: u32,
    /// Instance that sells.
    pub seller: u32,
}

/// What the sessions need to know.
#[derive(Clone, Debug, Default)]
pub struct Market {
    /// Highest price in ticks.
    pub price_ticks_max: u32,
    /// One for each session, in order.
    pub seats: Vec<Seat>,
    /// One for each book of the flow file, in order.
    pub flow_books: Vec<FlowBook>,
    /// Accounts that the flow buys and sells for.
    pub flow_accounts: [u32; 2],
    /// For attackers.
    pub attacker: Option<Seat>,
}

/// Makes sure that every session has a seat with funds and credits.
///
/// # Errors
/// [`LoadError`].
pub fn market(options: &Options) -> Result<Market, LoadError> {
    let identity = Identity { token: options.token, ..Identity::operator() };
    let client = Client::connect(&options.endpoint, &identity).map_err(LoadError::Setup)?;
    let mut operator = Operator { client };
    let books = operator.books(options)?;
    let mut market =
        Market { price_ticks_max: books[0].price_ticks_max.get(), ..Market::default() };
    if options.flow.is_some() {
        operator.flow_seats(options, &books, &mut market)?;
    } else if options.instances.is_empty() {
        let names = (0..options.mix.sessions()).map(|number| {
            let name = format!("{}-{}-{number}", options.prefix, options.seed);
            Wanted { account: name.clone(), name, books: vec![books[0]] }
        });
        market.seats = operator.seats(&names.collect::<Vec<_>>())?;
    } else {
        let seats = operator.named_seats(options, &books[0])?;
        market.seats = seats.iter().copied().cycle().take(options.mix.sessions()).collect();
    }
    if options.attack.is_some() {
        let name = format!("{}-{}-attacker", options.prefix, options.seed);
        let wanted = Wanted { account: name.clone(), name, books: vec![books[0]] };
        market.attacker = operator.seats(&[wanted])?.first().copied();
    }
    Ok(market)
}

/// An instance to be found or made.
struct Wanted {
    /// Name of its account.
    account: String,
    name: String,
    /// Books it trades in, all of one tier.
    books: Vec<BookRow>,
}

fn name_field(name: &str) -> Result<[u8; NAME_BYTES], LoadError> {
    field(name).ok_or_else(|| LoadError::LongName(name.to_owned()))
}

struct Operator {
    client: Client,
}

impl Operator {
    /// The books the run trades in: the one asked for, or as many from there as the flow has.
    fn books(&mut self, options: &Options) -> Result<Vec<BookRow>, LoadError> {
        let query = |from: u64| QueryBooks { from: (from as u32).into() };
        let all: Vec<BookRow> = self.client.ask_all(query).map_err(LoadError::Setup)?;
        let count = options.flow.as_ref().map_or(1, |flow| flow.books);
        let mut books = Vec::with_capacity(count);
        for number in (options.book..=u16::MAX).take(count) {
            let book = all.iter().find(|row| row.book.get() == number);
            let book = *book.ok_or(LoadError::NoBook(number))?;
            let max = book.price_ticks_max.get();
            let need = match options.flow {
                Some(_) => u32::from(*crate::meflow::PRICE_TICKS.end()),
                None => LADDER_MIN,
            };
            if max < need {
                return Err(LoadError::ShortLadder { book: number, max, need });
            }
            if options.flow.is_some() && book.orders.get() > 0 {
                return Err(LoadError::BookInUse { book: number, orders: book.orders.get() });
            }
            books.push(book);
        }
        Ok(books)
    }

    fn accounts(&mut self) -> Result<HashMap<[u8; NAME_BYTES], AccountRow>, LoadError> {
        let query = |from: u64| QueryAccounts { from: (from as u32).into() };
        let rows: Vec<AccountRow> = self.client.ask_all(query).map_err(LoadError::Setup)?;
        Ok(rows.into_iter().map(|row| (row.name, row)).collect())
    }

    fn instances(&mut self) -> Result<HashMap<[u8; NAME_BYTES], InstanceRow>, LoadError> {
        let query = |from: u64| QueryInstances { from: (from as u32).into() };
        let rows: Vec<InstanceRow> = self.client.ask_all(query).map_err(LoadError::Setup)?;
        Ok(rows.into_iter().map(|row| (row.name, row)).collect())
    }

    fn named_seats(&mut self, options: &Options, book: &BookRow) -> Result<Vec<Seat>, LoadError> {
        let instances = self.instances()?;
        let mut wanted = Vec::new();
        for name in &options.instances {
            let row = instances.get(&name_field(name)?).filter(|row| row.tier == book.tier);
            wanted.push(*row.ok_or_else(|| LoadError::NoInstance(name.clone()))?);
        }
        let accounts = self.accounts()?.into_values().map(|row| (row.account.get(), row));
        let accounts: HashMap<u32, AccountRow> = accounts.collect();
        for row in &wanted {
            let free = accounts.get(&row.account.get()).map_or(0, |row| row.free_micro.get());
            let deposits = self.deposits([(row.account.get(), free)]);
            self.call_all(&deposits)?;
            let grants = self.grants(row, &[*book]);
            self.call_all(&grants)?;
        }
        let seat =
            |row: &InstanceRow| Seat { account: row.account.get(), instance: row.instance.get() };
        Ok(wanted.iter().map(seat).collect())
    }

    /// Two accounts, so that no order of the flow meets its own account, and an instance of each
    /// in every tier whose books the flow uses.
    fn flow_seats(
        &mut self,
        options: &Options,
        books: &[BookRow],
        market: &mut Market,
    ) -> Result<(), LoadError> {
        let mut tiers: BTreeMap<u16, Vec<BookRow>> = BTreeMap::new();
        books.iter().for_each(|book| tiers.entry(book.tier.get()).or_default().push(*book));
        let mut wanted = Vec::new();
        for side in ["buys", "sells"] {
            let account = format!("{}-{}-{side}", options.prefix, options.seed);
            wanted.extend(tiers.iter().map(|(tier, books)| Wanted {
                name: format!("{account}-{tier}"),
                account: account.clone(),
                books: books.clone(),
            }));
        }
        let seats = self.seats(&wanted)?;
        let (buyers, sellers) = seats.split_at(tiers.len());
        market.flow_accounts = [buyers[0].account, sellers[0].account];
        let of_tier = |seats: &[Seat], tier: u16| {
            tiers.keys().position(|&known| known == tier).map_or(0, |at| seats[at].instance)
        };
        let place = |book: &BookRow| FlowBook {
            book: book.book.get(),
            buyer: of_tier(buyers, book.tier.get()),
            seller: of_tier(sellers, book.tier.get()),
        };
        market.flow_books = books.iter().map(place).collect();
        Ok(())
    }

    /// Instances by name, those missing made, each in the account named with it: sessions that
    /// shared an account would not trade with each other.
    fn seats(&mut self, wanted: &[Wanted]) -> Result<Vec<Seat>, LoadError> {
        let mut accounts: HashMap<[u8; NAME_BYTES], (u32, u64)> = HashMap::new();
        for (name, row) in self.accounts()? {
            accounts.insert(name, (row.account.get(), row.free_micro.get()));
        }
        let mut missing = BTreeSet::new();
        for one in wanted {
            let name = name_field(&one.account)?;
            if !accounts.contains_key(&name) {
                missing.insert(name);
            }
        }
        let creations: Vec<CreateAccount> =
            missing.iter().map(|&name| self.create_account(name)).collect();
        for (name, number) in missing.iter().zip(self.call_all(&creations)?) {
            accounts.insert(*name, (number as u32, 0));
        }
        let mut poor: BTreeMap<u32, u64> = BTreeMap::new();
        let mut instances = self.instances()?;
        let mut made = Vec::new();
        for one in wanted {
            let (account, free) = accounts[&name_field(&one.account)?];
            poor.insert(account, free);
            let name = name_field(&one.name)?;
            match instances.get(&name) {
                Some(row) if row.tier == one.books[0].tier && row.account.get() == account => {}
                Some(_) => return Err(LoadError::NameTaken(one.name.clone())),
                None => made.push(CreateInstance {
                    client_id: self.client.next_client_id().into(),
                    account: account.into(),
                    tier: one.books[0].tier,
                    name,
                    ..CreateInstance::zeroed()
                }),
            }
        }
        for (message, number) in made.iter().zip(self.call_all(&made)?) {
            let row = InstanceRow {
                instance: (number as u32).into(),
                account: message.account,
                ..InstanceRow::zeroed()
            };
            instances.insert(message.name, row);
        }
        let deposits = self.deposits(poor);
        self.call_all(&deposits)?;
        let mut seats = Vec::with_capacity(wanted.len());
        let mut grants = Vec::new();
        for one in wanted {
            let row = instances[&name_field(&one.name)?];
            grants.extend(self.grants(&row, &one.books));
            seats.push(Seat { account: row.account.get(), instance: row.instance.get() });
        }
        self.call_all(&grants)?;
        Ok(seats)
    }

    fn create_account(&mut self, name: [u8; NAME_BYTES]) -> CreateAccount {
        CreateAccount {
            client_id: self.client.next_client_id().into(),
            sells_to: u64::MAX.into(),
            buys_from: u64::MAX.into(),
            name,
            ..CreateAccount::zeroed()
        }
    }

    /// What these accounts, each with its free funds, lack.
    fn deposits(&mut self, accounts: impl IntoIterator<Item = (u32, u64)>) -> Vec<Deposit> {
        let poor = accounts.into_iter().filter(|&(_, free)| free < FUNDS_MICRO);
        poor.map(|(account, free)| Deposit {
            client_id: self.client.next_client_id().into(),
            amount_micro: (FUNDS_MICRO - free).into(),
            account: account.into(),
            reserved: 0.into(),
        })
        .collect()
    }

    /// What an instance lacks to trade in these books.
    fn grants(&mut self, instance: &InstanceRow, books: &[BookRow]) -> Vec<GrantCredits> {
        let free = |book: &BookRow| instance.free_millicredits[usize::from(book.resource)].get();
        let poor = books.iter().filter(|book| free(book) < MILLICREDITS);
        poor.map(|book| GrantCredits {
            client_id: self.client.next_client_id().into(),
            amount_millicredits: (MILLICREDITS - free(book)).into(),
            instance: instance.instance,
            resource: book.resource,
            reserved: [0; 3],
        })
        .collect()
    }

    /// Sends requests, several at a time, and returns what their answers hold, in order.
    fn call_all<M: Body>(&mut self, messages: &[M]) -> Result<Vec<u64>, LoadError> {
        let mut values = Vec::with_capacity(messages.len());
        for window in messages.chunks(WINDOW) {
            let first = values.len() as u64;
            let mut base = None;
            for message in window {
                let sequence = self.client.send(message).map_err(LoadError::Setup)?;
                base.get_or_insert(sequence - first);
            }
            while values.len() < first as usize + window.len() {
                let due = base.unwrap_or(0) + values.len() as u64;
                values.push(self.answer(due).map_err(LoadError::Setup)?);
            }
        }
        Ok(values)
    }

    /// The answer to request `due`, the oldest unanswered one: the core answers in order.
    fn answer(&mut self, due: u64) -> Result<u64, ClientError> {
        loop {
            let frame = self.client.recv(ANSWER_TIMEOUT)?;
            let frame = frame.ok_or(ClientError::Timeout("answer a request"))?;
            if frame.request() != Some(due) {
                continue;
            }
            if let Some(done) = frame.message::<Done>() {
                return Ok(done.value.get());
            }
            if let Some(m) = frame.message::<Refused>() {
                let (kind, code, detail) = (m.kind, m.code, m.detail.get());
                return Err(ClientError::Refused { kind, code, detail });
            }
            if let Some(m) = frame.message::<Rejected>() {
                return Err(ClientError::Rejected { kind: m.kind, code: m.code });
            }
        }
    }
}
