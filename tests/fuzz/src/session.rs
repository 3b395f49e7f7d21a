//! Sessions: the real gateway, sequencer, machine and desk, turned by hand on one thread, and peers
//! that say anything over sockets and shared memory, to them and to each other's harm.
//!
//! Each peer checks what it is told: whole known frames, nothing before its logon but refusals,
//! reports without a gap, and never one about somebody else's instance. When all have gone, every
//! session is closed, the ledger balances, and nothing turns any more.

mod peer;
mod room;

use arbitrary::{Result, Unstructured};
use nix::sys::signal::{SigSet, Signal};
use peer::Peer;
use room::House;

/// Steps of one run, and peers at a time, at most.
const STEPS_MAX: usize = 200;
const PEERS_MAX: usize = 8;

/// Plays the steps that `bytes` spell.
///
/// # Panics
/// When a peer is told what it must not be, or a stage panics.
pub fn run(bytes: &[u8]) {
    // Rust's own start would have seen to it: writing to a peer that has gone is an error, not an end.
    SigSet::from_iter([Signal::SIGPIPE]).thread_block().expect("block a signal");
    let mut house = House::open();
    let mut peers = Vec::new();
    let mut bytes = Unstructured::new(bytes);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() || step(&mut bytes, &mut house, &mut peers).is_err() {
            break;
        }
        peers.iter_mut().for_each(Peer::listen);
    }
    house.stalled = false;
    house.settle(&mut peers);
    drop(peers);
    house.settle(&mut []);
    house.check_empty();
}

fn step(bytes: &mut Unstructured<'_>, house: &mut House, peers: &mut Vec<Peer>) -> Result<()> {
    let what = bytes.int_in_range(0..=23_u8)?;
    if what == 0 || peers.is_empty() {
        if peers.len() < PEERS_MAX {
            peers.push(Peer::connect(house.socket()));
        }
        return Ok(());
    }
    let at = bytes.choose_index(peers.len())?;
    match what {
        1 => drop(peers.swap_remove(at)),
        2 => house.stalled = !house.stalled,
        3 => house.tick(),
        4 | 5 => peers[at].log_on(bytes)?,
        6 => peers[at].attach(bytes)?,
        7 => peers[at].scribble(bytes)?,
        8 => peers[at].say_anything(bytes)?,
        9..=13 => (0..bytes.int_in_range(1..=3)?).for_each(|_| house.turn()),
        14..=18 => peers[at].order(bytes)?,
        _ => peers[at].request(bytes)?,
    }
    if bytes.arbitrary()? {
        house.turn();
    }
    Ok(())
}
