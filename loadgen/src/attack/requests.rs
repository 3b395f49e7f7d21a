//! What attackers ask for that must be refused: what is not theirs, what makes no sense, what they
//! asked for before. All of it is well framed, so each request is answered, and by a reason.

use super::put;
use crate::random::SplitMix;
use crate::setup::Seat;
use vendue_wire::code::{OrderType, Side, TimeInForce};
use vendue_wire::message::*;

/// Puts request `number` of an attacker that forges into `outbox`: for another's instance or one
/// that there is none of, for an order of another's, or for what only operators may.
pub(super) fn forged(
    outbox: &mut Vec<u8>,
    number: u64,
    (own, victims): (Seat, &[Seat]),
    (book, random): (u16, &mut SplitMix),
) {
    let client_id = number.into();
    let victim = match victims.len() as u32 {
        0 => Seat { account: own.account + 1, instance: own.instance + 1 },
        count => victims[random.below(count) as usize],
    };
    let (account, instance) = (victim.account.into(), victim.instance.into());
    // Where orders are: a low slot, an early generation.
    let handle = (u64::from(random.below(4096)) | u64::from(random.below(64)) << 32).into();
    let reserved = 0.into();
    let order = order(number, victim.instance, book);
    match number % 13 {
        0 => put(outbox, number, &NewOrder { side: Side::Sell as u8, ..order }),
        1 => put(outbox, number, &NewOrder { instance: (u32::MAX - 1).into(), ..order }),
        2 => put(outbox, number, &Cancel { handle }),
        3 => {
            let (price_ticks, quantity) = (1.into(), 1.into());
            put(outbox, number, &Replace { client_id, handle, price_ticks, quantity });
        }
        4 => {
            let bid_milli = 1000.into();
            put(outbox, number, &SetBid { client_id, bid_milli, instance, ..SetBid::zeroed() });
        }
        5 => {
            let book = ANY_BOOK.into();
            put(outbox, number, &MassCancel { instance, book, side: 2, reserved: 0 });
        }
        6 => {
            let amount_micro = 1.into();
            put(outbox, number, &Withdraw { client_id, amount_micro, account, reserved });
        }
        7 => {
            let (account, amount_micro) = (own.account.into(), (1 << 30).into());
            put(outbox, number, &Deposit { client_id, amount_micro, account, reserved });
        }
        8 => {
            let (instance, amount_millicredits) = (own.instance.into(), (1 << 30).into());
            let grant = GrantCredits { client_id, instance, ..GrantCredits::zeroed() };
            put(outbox, number, &GrantCredits { amount_millicredits, ..grant });
        }
        9 => put(outbox, number, &RemoveInstance { client_id, instance, reserved }),
        10 => {
            let (book, phase) = (book.into(), 2);
            put(outbox, number, &SetPhase { client_id, book, phase, reserved: [0; 5] });
        }
        11 => {
            let millicores = 10.into();
            put(outbox, number, &SetAccountCap { client_id, account, millicores });
        }
        _ => {
            let name = field_cut("not an account");
            put(outbox, number, &CreateAccount { client_id, name, ..CreateAccount::zeroed() });
        }
    }
}

/// Puts request `number` of an attacker that asks for what makes no sense into `outbox`.
pub(super) fn absurd(outbox: &mut Vec<u8>, number: u64, own: Seat, book: u16) {
    let plain = order(number, own.instance, book);
    let order = match number % 10 {
        0 => NewOrder { price_ticks: 0.into(), ..plain },
        1 => NewOrder { price_ticks: u32::MAX.into(), ..plain },
        2 => NewOrder { price_ticks: 65_536.into(), side: Side::Sell as u8, ..plain },
        3 => NewOrder { quantity: 0.into(), ..plain },
        4 => NewOrder { quantity: u32::MAX.into(), ..plain },
        5 => NewOrder { book: (ANY_BOOK - 1).into(), ..plain },
        6 => NewOrder { side: 9, ..plain },
        7 => NewOrder { order_type: 7, ..plain },
        8 => {
            let time_in_force = TimeInForce::Gtd as u8;
            NewOrder { time_in_force, expires_at_ms: 1.into(), ..plain }
        }
        _ => NewOrder { expires_at_ms: u64::MAX.into(), ..plain },
    };
    put(outbox, number, &order);
}

/// An order that nobody meets and that does not stay.
pub(super) fn order(client_id: u64, instance: u32, book: u16) -> NewOrder {
    NewOrder {
        client_id: client_id.into(),
        instance: instance.into(),
        price_ticks: 1.into(),
        quantity: 1.into(),
        book: book.into(),
        side: Side::Buy as u8,
        order_type: OrderType::Limit as u8,
        time_in_force: TimeInForce::Ioc as u8,
        ..NewOrder::zeroed()
    }
}
