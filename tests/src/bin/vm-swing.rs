//! `vm-swing ENDPOINT INSTANCE BOOK SECONDS`: offers every whole CPU credit that an instance has at
//! a price that nobody pays, takes the offer back, and so on: who has nothing free may not burst,
//! so its cap moves as often as a tenant can make it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use vendue_wire::client::{Client, ClientError, Endpoint, Identity};
use vendue_wire::code::{Reject, Resource, Side, TimeInForce};
use vendue_wire::message::{Accepted, Cancel, Cancelled, InstanceRow, NewOrder, QueryInstances};

/// How long each side of a swing is left standing: about what the host's pace is.
const PAUSE: Duration = Duration::from_millis(130);
/// Far above what anybody bids.
const PRICE_TICKS: u32 = 4000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, instance, book, seconds] = arguments.as_slice() else {
        return fail("usage: vm-swing ENDPOINT INSTANCE BOOK SECONDS");
    };
    let (Ok(endpoint), Ok(instance), Ok(book), Ok(seconds)) =
        (endpoint.parse(), instance.parse(), book.parse(), seconds.parse::<u32>())
    else {
        return fail("vm-swing: ENDPOINT is unix:PATH; the others are numbers");
    };
    match swing(&endpoint, instance, book, Duration::from_secs(seconds.into())) {
        Ok(swings) => {
            println!("{swings} swings");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("vm-swing: {error}")),
    }
}

/// Swings for so long; returns how often.
fn swing(
    endpoint: &Endpoint,
    instance: u32,
    book: u16,
    lasting: Duration,
) -> Result<u32, ClientError> {
    let mut client = Client::connect(endpoint, &Identity::operator())?;
    let end = Instant::now() + lasting;
    let mut swings = 0;
    while Instant::now() < end {
        let rows: Vec<InstanceRow> = client.ask(&QueryInstances { from: instance.into() })?;
        let free =
            rows.first().map_or(0, |row| row.free_millicredits[Resource::Cpu as usize].get());
        let order = NewOrder {
            client_id: client.next_client_id().into(),
            instance: instance.into(),
            price_ticks: PRICE_TICKS.into(),
            quantity: u32::try_from(free / 1000).unwrap_or(u32::MAX).into(),
            book: book.into(),
            side: Side::Sell as u8,
            time_in_force: TimeInForce::Gtc as u8,
            ..NewOrder::zeroed()
        };
        let accepted: Accepted = match client.call_for(&order) {
            Ok(accepted) => accepted,
            // Used meanwhile: ask again.
            Err(ClientError::Rejected { code, .. })
                if code == Reject::InsufficientCredits as u8 =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        std::thread::sleep(PAUSE);
        client.call_for::<Cancelled, _>(&Cancel { handle: accepted.handle })?;
        std::thread::sleep(PAUSE);
        swings += 1;
    }
    client.logout()?;
    Ok(swings)
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
