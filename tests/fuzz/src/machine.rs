//! A stream of commands into the machine, beside the naive model of it, which must agree after
//! every one.

use arbitrary::{Result, Unstructured};
use std::cell::RefCell;
use vendue_tests::duel::{
    Bearer, Bounds, EDGE, FEES, Goal, Id, Lie, Met, NARROW, Op, Rent, Size, SwapAct, Swapper,
    Terms, TokenAct, WIDE, Which, World, play,
};

/// Operations of one run at most: the model is slow, and long runs say no more than short ones.
const OPS_MAX: usize = 300;

/// Plays the operations that `bytes` spell.
///
/// # Panics
/// At the first difference.
pub fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let Ok((world, ops)) = game(&mut bytes) else { return };
    if let Err(difference) = play(world, &ops, &RefCell::new(Met::default())) {
        panic!("{difference}\nafter {ops:#?}");
    }
}

fn game(bytes: &mut Unstructured<'_>) -> Result<(World, Vec<Op>)> {
    let world = *bytes.choose(&[NARROW, NARROW, EDGE, WIDE])?;
    let world = World { fees_bps: *bytes.choose(&FEES)?, ..world };
    let mut ops = Vec::new();
    while !bytes.is_empty() && ops.len() < OPS_MAX {
        ops.push(op(bytes, &world)?);
    }
    Ok((world, ops))
}

fn op(bytes: &mut Unstructured<'_>, world: &World) -> Result<Op> {
    let instance = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=world.instances_max as u8);
    Ok(match bytes.int_in_range(0..=31_u8)? {
        0..=3 => Op::Cancel { session: session(bytes)?, which: which(bytes)? },
        4..=7 => Op::Replace {
            session: session(bytes)?,
            which: which(bytes)?,
            price: amount(bytes, world.price_max, world.asks.0)?,
            quantity: amount(bytes, world.quantity_max, world.asks.1)?,
            id: id(bytes)?,
        },
        8 => Op::MassCancel {
            session: session(bytes)?,
            instance: if bytes.arbitrary()? { Some(instance(bytes)?) } else { None },
            book: if bytes.arbitrary()? { Some(bytes.int_in_range(0..=3)?) } else { None },
            side: bytes.int_in_range(0..=2)?,
        },
        9..=12 => admin(bytes, world)?,
        13 => limits(bytes, world)?,
        20..=22 => lease(bytes, world)?,
        23 => rescue(bytes, world)?,
        24 if bytes.arbitrary()? => token_swap(bytes)?,
        24 => token(bytes, world)?,
        14 | 15 => Op::Tick {
            milliseconds: match bytes.int_in_range(0..=15_u8)? {
                0 => bytes.int_in_range(0..=5_000_000_000)?,
                _ => bytes.int_in_range(0..=1500)?,
            },
        },
        16 => Op::Usage {
            instance: instance(bytes)?,
            resource: bytes.int_in_range(0..=4)?,
            amount: size(bytes)?,
        },
        17 => Op::Open {
            number: bytes.int_in_range(0..=11)?,
            role: bytes.int_in_range(0..=3)?,
            account: bytes.int_in_range(0..=6)?,
            instance: instance(bytes)?,
            cancel_on_disconnect: bytes.arbitrary()?,
        },
        18 => Op::Close { slot: bytes.int_in_range(0..=7)? },
        19 => Op::Snapshot,
        _ => Op::Order(terms(bytes, world)?),
    })
}

fn admin(bytes: &mut Unstructured<'_>, world: &World) -> Result<Op> {
    let (session, id) = (session(bytes)?, id(bytes)?);
    let account = bytes.int_in_range(0..=world.accounts_max as u8)?;
    let instance = bytes.int_in_range(0..=world.instances_max as u8)?;
    Ok(match bytes.int_in_range(0..=11_u8)? {
        11 => Op::Freeze { session, instance, frozen: bytes.arbitrary()?, id },
        10 => Op::Cap { session, account, millicores: bytes.arbitrary()?, id },
        9 => tier(bytes, world, session, id)?,
        7 => Op::Swap {
            session,
            pair: pair(bytes)?,
            vru: amount(bytes, world.capacity_vru as u32, 4)?,
            id,
        },
        8 => Op::Rate {
            session,
            pair: pair(bytes)?,
            rates: [
                [bytes.int_in_range(0..=1200)?, bytes.int_in_range(0..=1200)?],
                bound(bytes)?,
                bound(bytes)?,
            ],
            fixed: bytes.arbitrary()?,
            id,
        },
        6 => Op::Phase {
            session,
            book: bytes.int_in_range(0..=3)?,
            phase: bytes.int_in_range(0..=3)?,
            id,
        },
        0 => Op::Account {
            session,
            group: bytes.int_in_range(0..=63)?,
            sells_to: bytes.arbitrary()?,
            buys_from: bytes.arbitrary()?,
            name: bytes.arbitrary()?,
            id,
        },
        1 => Op::Funds { session, account, amount: size(bytes)?, out: bytes.arbitrary()?, id },
        2 => Op::Instance {
            session,
            account,
            tier: bytes.int_in_range(0..=2)?,
            vru: bytes.arbitrary()?,
            name: bytes.arbitrary()?,
            id,
        },
        3 => Op::Remove { session, instance, id },
        4 => Op::Bid {
            session,
            instance,
            resource: bytes.int_in_range(0..=4)?,
            bid_milli: bytes.int_in_range(90..=110_000)?,
            id,
        },
        _ => Op::Grant {
            session,
            instance,
            resource: bytes.int_in_range(0..=4)?,
            amount: size(bytes)?,
            id,
        },
    })
}

fn lease(bytes: &mut Unstructured<'_>, world: &World) -> Result<Op> {
    let (session, id) = (session(bytes)?, id(bytes)?);
    let instance = bytes.int_in_range(0..=world.instances_max as u8)?;
    let resource = bytes.int_in_range(0..=4)?;
    let vru = amount(bytes, world.capacity_vru as u32, 8)?;
    let rent = amount(bytes, world.price_max, world.asks.0)?;
    Ok(match bytes.int_in_range(0..=10_u8)? {
        10 => Op::Policy {
            session,
            instance,
            resource,
            of: (bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=3)?),
            funds: (bytes.int_in_range(0..=90_000)?, bytes.int_in_range(0..=9000)?),
            pays: (rent, bytes.int_in_range(0..=world.asks.0)?),
            pace: (
                bytes.int_in_range(0..=9000)?,
                bytes.int_in_range(0..=9000)?,
                bytes.int_in_range(0..=9)?,
            ),
            id,
        },
        8 => Op::Forecast {
            session: if bytes.ratio(1, 4)? { None } else { Some(session) },
            instance,
            resource,
            of: (bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=3)?),
            ms: (bytes.int_in_range(0..=9000)?, bytes.int_in_range(0..=20_000)?),
            vru: [amount(bytes, 60_000, 60)?; 3].map(|vru| vru as u16),
            id,
        },
        9 => Op::Event {
            session,
            instance,
            resource,
            name: bytes.int_in_range(0..=20)?,
            ms: (bytes.int_in_range(0..=9000)?, bytes.int_in_range(0..=20_000)?),
            days: (
                bytes.int_in_range(0..=8)?,
                bytes.int_in_range(0..=8)?,
                bytes.int_in_range(0..=3)?,
            ),
            shift: (bytes.int_in_range(0..=400)?, bytes.int_in_range(0..=60)?),
            id,
        },
        0..=3 => Op::Lease(Rent {
            session,
            instance,
            resource,
            class: bytes.int_in_range(0..=2)?,
            amount: vru,
            percent: bytes.ratio(1, 8)?,
            rent,
            hold_ms: if bytes.arbitrary()? { 0 } else { bytes.int_in_range(900..=61_000)? },
            expires_ms: if bytes.arbitrary()? { 0 } else { bytes.int_in_range(1..=9000)? },
            whole: bytes.ratio(1, 4)?,
            storage: if bytes.ratio(1, 8)? { Some(bytes.int_in_range(0..=3)?) } else { None },
            id,
        }),
        4 | 5 => {
            Op::Releases { session, which: which(bytes)?, vru, rent, end: bytes.arbitrary()?, id }
        }
        6 => Op::Loan { session, instance, resource, vru, entitles: bytes.arbitrary()?, id },
        _ => Op::Reserve {
            session,
            book: bytes.int_in_range(0..=4)?,
            class: bytes.int_in_range(0..=2)?,
            rent: bytes.int_in_range(0..=3)?,
            id,
        },
    })
}

fn token(bytes: &mut Unstructured<'_>, world: &World) -> Result<Op> {
    let acts = [
        TokenAct::Issue,
        TokenAct::Redeem,
        TokenAct::Split,
        TokenAct::Merge,
        TokenAct::Transfer,
        TokenAct::Revoke,
    ];
    let lies = [Lie::None, Lie::Stale, Lie::MoreVru, Lie::Longer, Lie::Foreign, Lie::Invented];
    let act = *bytes.choose(&acts)?;
    let least = u32::from(matches!(act, TokenAct::Issue));
    Ok(Op::Token(Bearer {
        session: session(bytes)?,
        act,
        which: (bytes.arbitrary()?, bytes.arbitrary()?),
        party: (bytes.int_in_range(0..=world.instances_max as u8)?, None),
        of: (bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=4)?),
        vru: amount(bytes, world.capacity_vru as u32, 8)?.max(least),
        window: (bytes.int_in_range(0..=3000)?, bytes.int_in_range(0..=9000)?),
        marks: [0, bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=3)?],
        lie: if bytes.ratio(1, 4)? { *bytes.choose(&lies)? } else { Lie::None },
        id: id(bytes)?,
    }))
}

fn token_swap(bytes: &mut Unstructured<'_>) -> Result<Op> {
    let acts = [SwapAct::Request, SwapAct::Approve, SwapAct::Reject, SwapAct::Policy];
    Ok(Op::TokenSwap(Swapper {
        session: session(bytes)?,
        act: *bytes.choose(&acts)?,
        which: (bytes.arbitrary()?, bytes.arbitrary()?),
        any: bytes.ratio(1, 8)?,
        vru: (bytes.int_in_range(0..=9)?, bytes.int_in_range(0..=3)?),
        ms: (bytes.int_in_range(0..=2000)?, bytes.arbitrary()?, bytes.int_in_range(0..=9000)?),
        funds: bytes.arbitrary()?,
        policy: (
            bytes.int_in_range(0..=5)?,
            bytes.int_in_range(0..=2)?,
            bytes.arbitrary()?,
            bytes.arbitrary()?,
        ),
        pays: None,
        lie: *bytes.choose(&[Lie::None, Lie::None, Lie::Stale, Lie::Invented])?,
        id: id(bytes)?,
    }))
}

fn rescue(bytes: &mut Unstructured<'_>, world: &World) -> Result<Op> {
    let (session, kpi) = (session(bytes)?, bytes.int_in_range(0..=7)?);
    let instance = bytes.int_in_range(0..=world.instances_max as u8)?;
    if bytes.ratio(2, 3)? {
        let session = if bytes.arbitrary()? { Some(session) } else { None };
        return Ok(Op::Kpi { session, instance, kpi, value: bytes.int_in_range(0..=100)? });
    }
    let time = |bytes: &mut Unstructured<'_>| bytes.int_in_range(900..=9000);
    let step = amount(bytes, world.capacity_vru as u32, 8)?;
    Ok(Op::Goal(Goal {
        session,
        instance,
        kpi,
        below: bytes.arbitrary()?,
        resource: bytes.int_in_range(0..=4)?,
        class: bytes.int_in_range(0..=2)?,
        at: (bytes.int_in_range(0..=100)?, bytes.int_in_range(0..=100)?),
        times_ms: (time(bytes)?, time(bytes)?),
        vru: (step, amount(bytes, world.capacity_vru as u32, 16)?),
        rent: amount(bytes, world.price_max, world.asks.0)?,
        budget: size(bytes)?.get(),
        window_s: bytes.int_in_range(0..=100)?,
        remove: bytes.ratio(1, 8)?,
        id: id(bytes)?,
    }))
}

fn tier(bytes: &mut Unstructured<'_>, world: &World, session: u8, id: Id) -> Result<Op> {
    Ok(Op::Tier {
        session,
        tier: bytes.int_in_range(0..=3)?,
        act: bytes.int_in_range(0..=4)?,
        capacity: [bytes.int_in_range(0..=world.capacity_vru as u32)?, 0],
        size: bytes.int_in_range(0..=20)?,
        name: bytes.arbitrary()?,
        id,
    })
}

/// Two tiers and a resource; some there are none of.
fn pair(bytes: &mut Unstructured<'_>) -> Result<(u8, u8, u8)> {
    Ok((bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=2)?, bytes.int_in_range(0..=2)?))
}

fn bound(bytes: &mut Unstructured<'_>) -> Result<[u32; 2]> {
    if bytes.arbitrary()? { bytes.arbitrary() } else { Ok([0, 0]) }
}

fn limits(bytes: &mut Unstructured<'_>, world: &World) -> Result<Op> {
    let (session, id) = (session(bytes)?, id(bytes)?);
    let account = bytes.int_in_range(0..=world.accounts_max as u8)?;
    Ok(match bytes.int_in_range(0..=7_u8)? {
        0 => Op::CancelAccount {
            session,
            account,
            book: if bytes.arbitrary()? { Some(bytes.int_in_range(0..=3)?) } else { None },
            side: bytes.int_in_range(0..=2)?,
            id,
        },
        1..=3 => Op::Reverse { session, back: bytes.int_in_range(0..=9)?, id },
        _ => {
            let whom = (
                bytes.int_in_range(0..=63)?,
                bytes.arbitrary()?,
                bytes.arbitrary()?,
                bytes.ratio(9, 10)?,
            );
            let credits = world.asks.1.saturating_mul(5);
            let mut most = [Some(credits); 4];
            for most in &mut most {
                *most = match bytes.int_in_range(0..=3_u8)? {
                    0 => Some(bytes.int_in_range(0..=credits)?),
                    1 => Some(bytes.arbitrary()?),
                    _ => None,
                };
            }
            Op::Limits(Bounds { session, account, whom, most, id })
        }
    })
}

fn terms(bytes: &mut Unstructured<'_>, world: &World) -> Result<Terms> {
    let market = bytes.int_in_range(0..=9_u8)? == 0;
    let time_in_force = *bytes.choose(&[0, 0, 0, 1, 2, 3])?;
    let post_only = !market && time_in_force < 2 && bytes.int_in_range(0..=7_u8)? == 0;
    Ok(Terms {
        session: session(bytes)?,
        wild: bytes.int_in_range(0..=19_u8)? == 0,
        instance: bytes.int_in_range(0..=world.instances_max as u8)?,
        book: bytes.int_in_range(0..=3)?,
        sell: bytes.arbitrary()?,
        market,
        time_in_force,
        post_only,
        self_trade: bytes.arbitrary()?,
        price: amount(bytes, world.price_max, world.asks.0)?,
        quantity: amount(bytes, world.quantity_max, world.asks.1)?,
        expires_ms: bytes.int_in_range(0..=4000)?,
        id: id(bytes)?,
    })
}

/// Mostly the operator, who may do anything; also a slot beyond the table.
fn session(bytes: &mut Unstructured<'_>) -> Result<u8> {
    Ok(bytes.int_in_range(0..=11_u8)?.saturating_sub(5))
}

/// Mostly inside `1..=usual`, with the ends and the values beyond them.
fn amount(bytes: &mut Unstructured<'_>, most: u32, usual: u32) -> Result<u32> {
    match bytes.int_in_range(0..=31_u8)? {
        0 => Ok(0),
        1 => Ok(u32::MAX),
        2 => Ok(most),
        3 => bytes.int_in_range(1..=most),
        _ => bytes.int_in_range(1..=usual),
    }
}

fn id(bytes: &mut Unstructured<'_>) -> Result<Id> {
    Ok(match bytes.int_in_range(0..=31_u8)? {
        0 => Id::Zero,
        1 => Id::Again,
        2 => Id::Ahead(bytes.int_in_range(1..=8)?),
        _ => Id::Next,
    })
}

fn which(bytes: &mut Unstructured<'_>) -> Result<Which> {
    Ok(match bytes.int_in_range(0..=15_u8)? {
        0 => Which::Forged(bytes.arbitrary()?),
        1 | 2 => Which::Ever(bytes.arbitrary()?),
        _ => Which::Open(bytes.arbitrary()?),
    })
}

fn size(bytes: &mut Unstructured<'_>) -> Result<Size> {
    Ok(match bytes.int_in_range(0..=15_u8)? {
        0 => Size::Power(bytes.int_in_range(0..=63)?),
        1 => Size::BelowPower(bytes.int_in_range(1..=63)?),
        2 => Size::Max,
        3..=8 => Size::Small(bytes.int_in_range(0..=3000)?),
        _ => Size::Thousands(bytes.int_in_range(0..=60)?),
    })
}
