use super::*;
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode};
use vendue_wire::message::{Body, Heartbeat};

fn frame<M: Body>(message: &M) -> Received {
    let mut bytes = [0; FRAME_BYTES_MAX];
    encode(1, message, &mut bytes);
    Received::of(&Frame::parse(&bytes).unwrap().unwrap())
}

const PRICE: u32 = 50;
const QUANTITY: u32 = 10;

fn terms(client_id: u64) -> Terms {
    let (side, price_ticks, quantity) = (Side::Buy, PRICE, QUANTITY);
    Terms { client_id, instance: 3, book: 1, side, price_ticks, quantity, rests: true }
}

/// A session that asked for orders with ids 1, 2... as requests 11, 12...
fn asked(orders: u64) -> Checker {
    let mut checker = Checker::default();
    for client_id in 1..=orders {
        checker.sent(10 + client_id, Asked::Order(terms(client_id)), client_id * 100);
    }
    checker
}

fn accept(client_id: u64) -> Accepted {
    Accepted {
        request: (10 + client_id).into(),
        client_id: client_id.into(),
        handle: (1000 + client_id).into(),
        instance: 3.into(),
        book: 1.into(),
        price_ticks: PRICE.into(),
        quantity: QUANTITY.into(),
        ..Accepted::zeroed()
    }
}

fn fill(client_id: u64, quantity: u32, remaining: u32) -> Filled {
    Filled {
        client_id: client_id.into(),
        handle: (1000 + client_id).into(),
        instance: 3.into(),
        book: 1.into(),
        price_ticks: PRICE.into(),
        quantity: quantity.into(),
        remaining: remaining.into(),
        ..Filled::zeroed()
    }
}

fn gone(client_id: u64, quantity: u32, request: u64) -> Cancelled {
    Cancelled {
        request: request.into(),
        client_id: client_id.into(),
        handle: (1000 + client_id).into(),
        quantity: quantity.into(),
        ..Cancelled::zeroed()
    }
}

fn reject(request: u64, code: Reject) -> Rejected {
    Rejected { request: request.into(), code: code as u8, ..Rejected::zeroed() }
}

fn refuse(request: u64) -> Refused {
    Refused { request: request.into(), code: Reject::Busy as u8, ..Refused::zeroed() }
}

/// Accepted orders, and a cancel of the first one as request 20.
fn cancelling() -> Checker {
    let mut checker = asked(2);
    checker.received(&frame(&accept(1))).unwrap();
    checker.received(&frame(&accept(2))).unwrap();
    assert_eq!(checker.pick(4), Some(1001));
    checker.sent(20, Asked::Cancel { handle: 1001, closing: false }, 900);
    checker
}

#[test]
fn a_life_of_orders_is_counted() {
    let mut checker = cancelling();
    assert_eq!((checker.open(), checker.cancellable(), checker.unanswered()), (2, 1, 1));
    assert_eq!((checker.resting_at_most(), asked(3).resting_at_most()), (2, 3));
    assert_eq!(checker.received(&frame(&fill(2, 4, 6))), Ok(None));
    assert_eq!(checker.received(&frame(&Filled { maker: 1, ..fill(1, 3, 7) })), Ok(None));
    let answer = checker.received(&frame(&gone(1, 7, 20))).unwrap().unwrap();
    assert_eq!(answer.intended_ns, 900);
    checker.check_all_answered().unwrap();
    assert_eq!(checker.check_none_open(), Err(Violation::StillOpen { count: 1, client_id: 2 }));
    checker.received(&frame(&fill(2, 6, 0))).unwrap();
    checker.check_none_open().unwrap();
    let counts = Counts {
        orders: 2,
        cancels: 1,
        accepted: 2,
        cancelled: 1,
        fills: 3,
        trades: 2,
        credits_traded: 10,
        ..Counts::default()
    };
    assert_eq!(checker.counts, counts);
}

#[test]
fn a_second_answer_of_any_kind_is_found() {
    let mut checker = asked(3);
    checker.received(&frame(&accept(1))).unwrap();
    let doubled = |request| Err(Violation::Doubled { request });
    assert_eq!(checker.clone().received(&frame(&accept(1))), doubled(11));
    assert_eq!(checker.clone().received(&frame(&reject(11, Reject::BadPrice))), doubled(11));
    assert_eq!(checker.clone().received(&frame(&refuse(11))), doubled(11));
    // Answered ahead of the front, so still kept.
    checker.received(&frame(&refuse(13))).unwrap();
    assert_eq!(checker.received(&frame(&refuse(13))), doubled(13));
}

#[test]
fn an_answer_to_nothing_is_found() {
    let never = |request| Err(Violation::NeverAsked { request });
    assert_eq!(asked(1).received(&frame(&accept(2))), never(12));
    assert_eq!(cancelling().received(&frame(&gone(2, 10, 21))), never(21));
    let unasked = Err(Violation::Unasked { kind: 2 });
    assert_eq!(asked(1).received(&frame(&Heartbeat {})), unasked);
}

#[test]
fn the_core_answers_in_order_and_the_gateway_at_once() {
    let mut checker = asked(3);
    let early = Violation::OutOfOrder { request: 12, waiting: 11 };
    assert_eq!(checker.clone().received(&frame(&accept(2))), Err(early));
    checker.received(&frame(&refuse(12))).unwrap();
    let early = Violation::OutOfOrder { request: 13, waiting: 11 };
    assert_eq!(checker.clone().received(&frame(&accept(3))), Err(early));
    checker.received(&frame(&accept(1))).unwrap();
    checker.received(&frame(&accept(3))).unwrap();
    checker.check_all_answered().unwrap();
    assert_eq!(checker.counts.refused, BTreeMap::from([(6, 1)]));
}

#[test]
fn a_missing_answer_is_found() {
    let mut checker = asked(3);
    assert_eq!(checker.check_all_answered(), Err(Violation::Missing { count: 3, first: 11 }));
    checker.received(&frame(&accept(1))).unwrap();
    checker.received(&frame(&refuse(13))).unwrap();
    assert_eq!(checker.check_all_answered(), Err(Violation::Missing { count: 1, first: 12 }));
}

#[test]
fn an_acceptance_of_other_terms_is_found() {
    let wrong = [
        Accepted { client_id: 9.into(), ..accept(1) },
        Accepted { price_ticks: 51.into(), ..accept(1) },
        Accepted { quantity: 11.into(), ..accept(1) },
        Accepted { side: 1, ..accept(1) },
        Accepted { side: 2, ..accept(1) },
        Accepted { instance: 4.into(), ..accept(1) },
        Accepted { book: 0.into(), ..accept(1) },
    ];
    for message in wrong {
        let mismatch = Err(Violation::Mismatch { request: 11, kind: 0x90 });
        assert_eq!(asked(1).received(&frame(&message)), mismatch);
    }
}

#[test]
fn an_acceptance_of_a_cancel_is_found() {
    let accepted = Accepted { request: 20.into(), ..accept(1) };
    let mismatch = Err(Violation::Mismatch { request: 20, kind: 0x90 });
    assert_eq!(cancelling().received(&frame(&accepted)), mismatch);
}

#[test]
fn cancels_after_the_run_are_checked_but_not_counted() {
    let mut checker = cancelling();
    let handle = checker.pick(0).unwrap();
    checker.sent(21, Asked::Cancel { handle, closing: true }, 0);
    assert_eq!((checker.counts.cancels, checker.unanswered()), (1, 2));
    let early = Violation::OutOfOrder { request: 21, waiting: 20 };
    assert_eq!(checker.received(&frame(&gone(2, 10, 21))), Err(early));
}

#[test]
fn fills_beyond_the_quantity_or_the_limit_are_found() {
    let mut checker = asked(1);
    let closed = Err(Violation::NotOpen { client_id: 1, kind: 0x91 });
    assert_eq!(checker.clone().received(&frame(&fill(1, 1, 9))), closed);
    checker.received(&frame(&accept(1))).unwrap();
    for (quantity, remaining) in [(11, 0), (4, 7), (4, 5), (0, 10)] {
        let found = checker.clone().received(&frame(&fill(1, quantity, remaining)));
        assert!(matches!(found, Err(Violation::Quantity { open: 10, .. })), "{found:?}");
    }
    let worse = Filled { price_ticks: 51.into(), ..fill(1, 1, 9) };
    let found = checker.clone().received(&frame(&worse));
    assert!(matches!(found, Err(Violation::WorsePrice { limit_ticks: 50, .. })), "{found:?}");
    let better = Filled { price_ticks: 49.into(), ..fill(1, 1, 9) };
    checker.clone().received(&frame(&better)).unwrap();
    let other = Filled { handle: 5.into(), ..fill(1, 1, 9) };
    assert_eq!(checker.clone().received(&frame(&other)), closed);
    checker.received(&frame(&fill(1, 10, 0))).unwrap();
    assert_eq!(checker.received(&frame(&fill(1, 1, 0))), closed);
}

#[test]
fn a_sell_is_not_filled_below_its_limit() {
    let mut checker = Checker::default();
    let sell = Terms { side: Side::Sell, rests: false, ..terms(1) };
    checker.sent(11, Asked::Order(sell), 0);
    checker.received(&frame(&Accepted { side: 1, ..accept(1) })).unwrap();
    assert_eq!(checker.cancellable(), 0, "what does not rest is not worth a cancel");
    let better = Filled { price_ticks: 51.into(), side: 1, ..fill(1, 1, 9) };
    checker.received(&frame(&better)).unwrap();
    let worse = Filled { price_ticks: 49.into(), side: 1, ..fill(1, 1, 8) };
    assert!(matches!(
        checker.received(&frame(&worse)),
        Err(Violation::WorsePrice { limit_ticks: 50, price_ticks: 49, .. })
    ));
}

#[test]
fn cancels_are_checked_against_what_was_open() {
    let mut checker = cancelling();
    let found = checker.clone().received(&frame(&gone(1, 9, 20)));
    assert!(matches!(found, Err(Violation::Quantity { open: 10, change: 9, .. })), "{found:?}");
    // The cancel of order 1 cannot have removed order 2.
    let mismatch = Err(Violation::Mismatch { request: 20, kind: 0x92 });
    assert_eq!(checker.clone().received(&frame(&gone(2, 10, 20))), mismatch);
    checker.received(&frame(&gone(1, 10, 20))).unwrap();
    let closed = Err(Violation::NotOpen { client_id: 1, kind: 0x92 });
    assert_eq!(checker.received(&frame(&gone(1, 10, 20))), closed);
}

#[test]
fn an_order_may_cost_its_own_rest_or_another_order() {
    let mut checker = asked(2);
    checker.received(&frame(&accept(1))).unwrap();
    // Self-trade prevention: order 2 removes order 1 before its own answer is out, or after.
    assert_eq!(checker.received(&frame(&gone(1, 10, 12))), Ok(None));
    checker.received(&frame(&accept(2))).unwrap();
    assert_eq!(checker.received(&frame(&gone(2, 10, 12))), Ok(None));
    checker.check_all_answered().unwrap();
    checker.check_none_open().unwrap();
}

#[test]
fn a_rejected_cancel_is_right_only_if_the_order_is_gone() {
    let mut checker = cancelling();
    let unknown = frame(&reject(20, Reject::UnknownOrder));
    assert_eq!(checker.clone().received(&unknown), Err(Violation::Lost { client_id: 1 }));
    checker.received(&frame(&fill(1, 10, 0))).unwrap();
    assert!(checker.received(&unknown).unwrap().is_some());
    assert_eq!(checker.counts.rejected, BTreeMap::from([(24, 1)]));
}

#[test]
fn a_refused_cancel_may_be_tried_again() {
    let mut checker = cancelling();
    checker.received(&frame(&refuse(20))).unwrap();
    assert_eq!(checker.cancellable(), 2);
    let mut again = [checker.pick(0), checker.pick(1)];
    again.sort_unstable();
    assert_eq!(again, [Some(1001), Some(1002)]);
}

#[test]
fn a_resting_order_trades_at_its_own_limit() {
    let mut checker = asked(1);
    checker.received(&frame(&accept(1))).unwrap();
    let better = Filled { price_ticks: 49.into(), maker: 1, ..fill(1, 1, 9) };
    let found = Violation::MakerPrice { client_id: 1, price_ticks: 49, limit_ticks: 50 };
    assert_eq!(checker.received(&frame(&better)), Err(found));
}

#[test]
fn a_fill_of_another_side_book_or_instance_is_found() {
    for wrong in [
        Filled { side: 1, ..fill(1, 1, 9) },
        Filled { book: 2.into(), ..fill(1, 1, 9) },
        Filled { instance: 9.into(), ..fill(1, 1, 9) },
    ] {
        let mut checker = asked(1);
        checker.received(&frame(&accept(1))).unwrap();
        let found = checker.received(&frame(&wrong));
        assert_eq!(found, Err(Violation::NotOpen { client_id: 1, kind: 0x91 }));
    }
}

#[test]
fn one_handle_does_not_stand_for_two_open_orders() {
    let mut checker = asked(2);
    checker.received(&frame(&accept(1))).unwrap();
    let same = Accepted { handle: 1001.into(), ..accept(2) };
    let mismatch = Err(Violation::Mismatch { request: 12, kind: 0x90 });
    assert_eq!(checker.received(&frame(&same)), mismatch);
}

#[test]
fn terms_survive_the_wire() {
    let asked = Terms { rests: false, side: Side::Sell, ..terms(7) };
    assert_eq!(Terms::of(&asked.request()), Some(asked));
    let post_only = NewOrder { post_only: 1, ..asked.request() };
    assert_eq!(Terms::of(&post_only), None);
}
