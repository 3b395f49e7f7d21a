//! `vm-sell ENDPOINT INSTANCE TICKS`: sells every whole CPU credit that an instance of the first
//! tier has. A busy instance has other credits a moment later, so this asks and sells on one
//! connection, and asks again where it was too late: what a trading agent does.

use std::process::ExitCode;

use vendue_wire::client::{ANSWER_TIMEOUT, Client, ClientError, Endpoint, Identity};
use vendue_wire::code::{Reject, Resource, Side, TimeInForce};
use vendue_wire::message::{Accepted, Filled, InstanceRow, NewOrder, QueryInstances};

const ATTEMPTS_MAX: u32 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, instance, ticks] = arguments.as_slice() else {
        return fail("usage: vm-sell ENDPOINT INSTANCE TICKS");
    };
    let (Ok(endpoint), Ok(instance), Ok(ticks)) =
        (endpoint.parse(), instance.parse(), ticks.parse())
    else {
        return fail("vm-sell: ENDPOINT is unix:PATH; INSTANCE and TICKS are numbers");
    };
    match sell(&endpoint, instance, ticks) {
        Ok(sold) => {
            println!("sold {sold} credits");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("vm-sell: {error}")),
    }
}

/// Sells all; returns how many credits that was.
fn sell(endpoint: &Endpoint, instance: u32, ticks: u32) -> Result<u32, ClientError> {
    let mut client = Client::connect(endpoint, &Identity::operator())?;
    let mut attempts = 0;
    loop {
        let query = QueryInstances { from: instance.into() };
        let rows: Vec<InstanceRow> = client.ask(&query)?;
        let free =
            rows.first().map_or(0, |row| row.free_millicredits[Resource::Cpu as usize].get());
        let all = u32::try_from(free / 1000).unwrap_or(u32::MAX);
        let order = NewOrder {
            client_id: client.next_client_id().into(),
            instance: instance.into(),
            price_ticks: ticks.into(),
            quantity: all.into(),
            side: Side::Sell as u8,
            time_in_force: TimeInForce::Fok as u8,
            ..NewOrder::zeroed()
        };
        attempts += 1;
        match client.call_for::<Accepted, _>(&order) {
            Ok(_) => break,
            Err(ClientError::Rejected { code, .. })
                if code == Reject::InsufficientCredits as u8 && attempts < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
        }
    }
    loop {
        let Some(frame) = client.recv(ANSWER_TIMEOUT)?.copied() else {
            return Err(ClientError::Timeout("fill an order"));
        };
        if let Some(filled) = frame.message::<Filled>() {
            client.logout()?;
            return Ok(filled.quantity.get());
        }
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
