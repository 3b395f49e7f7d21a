//! Accounts and instances to trade with: found by name, made where missing, topped up.

use crate::steps::LADDER_MIN;
use crate::{LoadError, Options};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::message::{
    AccountRow, BookRow, CreateAccount, CreateInstance, Deposit, GrantCredits, InstanceRow,
    NAME_BYTES, QueryAccounts, QueryBooks, QueryInstances, field, text,
};

/// Free funds each account starts a run with, in micro-units.
const FUNDS_MICRO: u64 = 1_000_000_000_000_000;
/// Free credits each instance starts a run with, in milli-credits.
const MILLICREDITS: u64 = 1_000_000_000_000;

/// Who a session trades for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Account.
    pub account: u32,
    /// Instance.
    pub instance: u32,
}

/// What the sessions need to know.
#[derive(Clone, Debug)]
pub struct Market {
    /// Highest price in ticks.
    pub price_ticks_max: u32,
    /// One for each session, in order.
    pub seats: Vec<Seat>,
}

/// Makes sure that every session has a seat with funds and credits.
///
/// # Errors
/// [`LoadError`].
pub fn market(options: &Options) -> Result<Market, LoadError> {
    let identity = Identity { token: options.token, ..Identity::operator() };
    let client = Client::connect(&options.endpoint, &identity).map_err(LoadError::Setup)?;
    let mut operator = Operator { client };
    let book = operator.book(options.book)?;
    let instances = if options.instances.is_empty() {
        (0..options.sessions)
            .map(|number| operator.own_instance(options, &book, number))
            .collect::<Result<Vec<_>, _>>()?
    } else {
        operator.named_instances(options, &book)?
    };
    let mut seats = Vec::with_capacity(options.sessions);
    for row in &instances {
        operator.top_up(row, &book)?;
        seats.push(Seat { account: row.account.get(), instance: row.instance.get() });
    }
    let count = seats.len();
    let seats = (0..options.sessions).map(|session| seats[session % count]).collect();
    Ok(Market { price_ticks_max: book.price_ticks_max.get(), seats })
}

struct Operator {
    client: Client,
}

impl Operator {
    fn book(&mut self, number: u16) -> Result<BookRow, LoadError> {
        let from = u32::from(number).into();
        let books: Vec<BookRow> =
            self.client.ask(&QueryBooks { from }).map_err(LoadError::Setup)?;
        let book = books.into_iter().find(|row| row.book.get() == number);
        let book = book.ok_or(LoadError::NoBook(number))?;
        let max = book.price_ticks_max.get();
        if max < LADDER_MIN {
            return Err(LoadError::ShortLadder { book: number, max, need: LADDER_MIN });
        }
        Ok(book)
    }

    fn accounts(&mut self) -> Result<Vec<AccountRow>, LoadError> {
        let query = |from: u64| QueryAccounts { from: (from as u32).into() };
        self.client.ask_all(query).map_err(LoadError::Setup)
    }

    fn instances(&mut self) -> Result<Vec<InstanceRow>, LoadError> {
        let query = |from: u64| QueryInstances { from: (from as u32).into() };
        self.client.ask_all(query).map_err(LoadError::Setup)
    }

    fn named_instances(
        &mut self,
        options: &Options,
        book: &BookRow,
    ) -> Result<Vec<InstanceRow>, LoadError> {
        let rows = self.instances()?;
        let find = |name: &String| {
            rows.iter()
                .find(|row| text(&row.name) == name && row.tier == book.tier)
                .copied()
                .ok_or_else(|| LoadError::NoInstance(name.clone()))
        };
        options.instances.iter().map(find).collect()
    }

    /// The instance of session `number`, in an account of its own: sessions that shared one would
    /// not trade with each other.
    fn own_instance(
        &mut self,
        options: &Options,
        book: &BookRow,
        number: usize,
    ) -> Result<InstanceRow, LoadError> {
        let name = format!("{}-{}-{number}", options.prefix, options.seed);
        let name_field: [u8; NAME_BYTES] =
            field(&name).ok_or_else(|| LoadError::LongName(name.clone()))?;
        let account = self.account(name_field)?;
        let client_id = self.client.next_client_id().into();
        let wanted = CreateInstance {
            client_id,
            account: account.into(),
            tier: book.tier,
            name: name_field,
            ..CreateInstance::zeroed()
        };
        // Where the name is taken, an earlier run of this seed took it.
        if let Some(instance) = made(self.client.call(&wanted).map(|done| done.value.get()))? {
            return Ok(InstanceRow {
                instance: (instance as u32).into(),
                account: account.into(),
                tier: book.tier,
                ..InstanceRow::zeroed()
            });
        }
        let found = self.instances()?.into_iter().find(|row| row.name == name_field);
        found.filter(|row| row.tier == book.tier).ok_or(LoadError::NoInstance(name))
    }

    fn account(&mut self, name: [u8; NAME_BYTES]) -> Result<u32, LoadError> {
        let wanted = CreateAccount {
            client_id: self.client.next_client_id().into(),
            sells_to: u64::MAX.into(),
            buys_from: u64::MAX.into(),
            name,
            ..CreateAccount::zeroed()
        };
        if let Some(account) = made(self.client.call(&wanted).map(|done| done.value.get()))? {
            return Ok(account as u32);
        }
        let found = self.accounts()?.into_iter().find(|row| row.name == name);
        found.map(|row| row.account.get()).ok_or(LoadError::NoInstance(text(&name).to_owned()))
    }

    fn top_up(&mut self, instance: &InstanceRow, book: &BookRow) -> Result<(), LoadError> {
        let account = instance.account;
        let query = QueryAccounts { from: account };
        let rows: Vec<AccountRow> = self.client.ask(&query).map_err(LoadError::Setup)?;
        let free = rows.iter().find(|row| row.account == account).map_or(0, |r| r.free_micro.get());
        if free < FUNDS_MICRO {
            let client_id = self.client.next_client_id().into();
            let amount_micro = (FUNDS_MICRO - free).into();
            let deposit = Deposit { client_id, amount_micro, account, reserved: 0.into() };
            self.client.call(&deposit).map_err(LoadError::Setup)?;
        }
        let free = instance.free_millicredits[usize::from(book.resource)].get();
        if free < MILLICREDITS {
            let grant = GrantCredits {
                client_id: self.client.next_client_id().into(),
                amount_millicredits: (MILLICREDITS - free).into(),
                instance: instance.instance,
                resource: book.resource,
                reserved: [0; 3],
            };
            self.client.call(&grant).map_err(LoadError::Setup)?;
        }
        Ok(())
    }
}

/// The number of what was made, or `None` if its name is taken.
fn made(result: Result<u64, ClientError>) -> Result<Option<u64>, LoadError> {
    const NAME_TAKEN: u8 = vendue_wire::code::Reject::BadName as u8;
    match result {
        Ok(number) => Ok(Some(number)),
        Err(ClientError::Rejected { code: NAME_TAKEN, .. }) => Ok(None),
        Err(error) => Err(LoadError::Setup(error)),
    }
}
