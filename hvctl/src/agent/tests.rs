//! Decisions against numbers worked out by hand.

use super::*;
use vendue_wire::code::Resource;

/// Baseline 10 VRUs; a horizon of 60 s; offers above 120 s (1200 credits), requests below 30 s
/// (300 credits); fixed prices of 20 and 120 ticks.
fn settings() -> Settings {
    Settings {
        horizon_s: 60,
        offer_above_s: 120,
        request_below_s: 30,
        weights: vec![3, 2, 1],
        policy: Policy::Fixed,
        band: Band { low_ticks: 20, high_ticks: 120 },
    }
}

fn seen(credits: u64) -> Situation {
    Situation {
        now_s: 1_000_000,
        baseline_vru: 10,
        balance_millicredits: credits * 1000,
        funds_micro: 1_000_000_000,
        tick_micro: 1,
        price_ticks_max: 4095,
        last_ticks: 0,
    }
}

/// Decides after samples of these VRUs, oldest first.
fn decide(settings: Settings, vru: &[u64], seen: &Situation) -> Option<Decision> {
    let mut agent = Agent::new(settings, None).unwrap();
    for vru in vru {
        agent.observe(vru * 1000);
    }
    agent.decide(seen)
}

fn order(side: Side, price_ticks: u32, quantity: u32) -> Option<Order> {
    Some(Order { side, price_ticks, quantity })
}

#[test]
fn who_knows_nothing_about_its_demand_does_nothing() {
    assert_eq!(decide(settings(), &[], &seen(1_000_000)), None);
}

#[test]
fn a_rich_instance_offers_what_it_will_not_need() {
    // Demand (3 x 4 + 2 x 4 + 1 x 10) / 6 = 5 VRUs; 1000 + (10 - 5) x 60 = 1300, 100 above 1200.
    let decision = decide(settings(), &[10, 4, 4], &seen(1000)).unwrap();
    assert_eq!(decision.demand_milli_vru, 5_000);
    assert_eq!(decision.predicted_millicredits, 1_300_000);
    assert_eq!(decision.order, order(Side::Sell, 20, 100));
}

#[test]
fn a_poor_instance_requests_what_it_will_lack() {
    // 100 + (10 - 25) x 60 = -800; 1100 below 300.
    let decision = decide(settings(), &[25], &seen(100)).unwrap();
    assert_eq!(decision.predicted_millicredits, -800_000);
    assert_eq!(decision.order, order(Side::Buy, 120, 1100));
}

#[test]
fn between_the_thresholds_it_rests() {
    for (credits, demand) in [(300, 10), (600, 0), (1200, 10), (900, 20), (900, 5)] {
        let decision = decide(settings(), &[demand], &seen(credits)).unwrap();
        assert_eq!(decision.order, None, "{credits} credits, demand {demand}");
    }
    // One milli-credit beyond a threshold: a whole credit is requested, none can be offered.
    let mut poor = seen(300);
    poor.balance_millicredits -= 1;
    assert_eq!(decide(settings(), &[10], &poor).unwrap().order, order(Side::Buy, 120, 1));
    let mut rich = seen(1200);
    rich.balance_millicredits += 999;
    assert_eq!(decide(settings(), &[10], &rich).unwrap().order, None);
    rich.balance_millicredits += 1;
    assert_eq!(decide(settings(), &[10], &rich).unwrap().order, order(Side::Sell, 20, 1));
}

#[test]
fn an_offer_leaves_in_hand_what_would_be_requested_again() {
    // A horizon of 600 s: 400 + 10 x 600 = 6400, 5200 above; but 300 of the 400 stay.
    let long = Settings { horizon_s: 600, ..settings() };
    assert_eq!(decide(long.clone(), &[0], &seen(400)).unwrap().order, order(Side::Sell, 20, 100));
    assert_eq!(decide(long.clone(), &[0], &seen(300)).unwrap().order, None);
    // A negative threshold keeps nothing back, and what is not there is not offered.
    let bold = Settings { request_below_s: -30, ..long };
    assert_eq!(decide(bold.clone(), &[0], &seen(400)).unwrap().order, order(Side::Sell, 20, 400));
    // 0 + (10 - 11) x 600 = -600 is below -300 by 300.
    assert_eq!(decide(bold, &[11], &seen(0)).unwrap().order, order(Side::Buy, 120, 300));
}

#[test]
fn a_request_is_cut_to_what_can_be_paid() {
    // 1100 credits at 120 ticks of 1000 micro-units would be 132 units of funds. Of 32 one is kept
    // for fees: 31 000 000 / 120 000 = 258.
    let mut poor = Situation { tick_micro: 1000, funds_micro: 32_000_000, ..seen(100) };
    assert_eq!(decide(settings(), &[25], &poor).unwrap().order, order(Side::Buy, 120, 258));
    poor.funds_micro = 120_000;
    assert_eq!(decide(settings(), &[25], &poor).unwrap().order, None);
}

#[test]
fn urgency_is_measured_in_what_a_horizon_earns() {
    // A horizon earns 600 credits. 450 above the threshold is three quarters: 120 - 75 = 45.
    let linear = Settings { policy: Policy::Linear, ..settings() };
    let rich = decide(linear.clone(), &[10], &seen(1650)).unwrap();
    assert_eq!(rich.order, order(Side::Sell, 45, 450));
    // 0 + (10 - 10) x 60 = 0 is 300 below: half, 20 + 50.
    assert_eq!(decide(linear, &[10], &seen(0)).unwrap().order, order(Side::Buy, 70, 300));
    let last = Settings { policy: Policy::Last, ..settings() };
    let market = Situation { last_ticks: 80, ..seen(0) };
    assert_eq!(decide(last.clone(), &[10], &market).unwrap().order, order(Side::Buy, 85, 300));
    // The book's own bound holds too.
    let small = Situation { price_ticks_max: 60, ..market };
    assert_eq!(decide(last, &[10], &small).unwrap().order, order(Side::Buy, 60, 300));
}

#[test]
fn what_the_user_knows_replaces_the_average() {
    // Known are 40 of the 60 s: the last row stands as long as the one before it.
    let table = "time,cpu\n1000000,40\n1000020,10\n";
    let series = Series::parse(table, Resource::Cpu).unwrap().unwrap();
    let mut agent = Agent::new(settings(), Some(series)).unwrap();
    let poor = seen(100);
    assert_eq!(agent.decide(&poor), None, "the last 20 s are not known");
    agent.observe(4_000);
    let decision = agent.decide(&poor).unwrap();
    // 20 x 40 + 20 x 10 + 20 x 4 = 1080 credits; 100 + 600 - 1080 = -380.
    assert_eq!(decision.demand_milli_vru, 18_000);
    assert_eq!(decision.predicted_millicredits, -380_000);
    assert_eq!(decision.order, order(Side::Buy, 120, 680));
}

#[test]
fn without_a_baseline_only_the_balance_counts() {
    let bare = |credits| Situation { baseline_vru: 0, ..seen(credits) };
    assert_eq!(decide(settings(), &[0], &bare(50)).unwrap().order, order(Side::Sell, 20, 50));
    assert_eq!(decide(settings(), &[1], &bare(50)).unwrap().order, order(Side::Buy, 120, 10));
    assert_eq!(decide(settings(), &[0], &bare(0)).unwrap().order, None);
}

#[test]
fn the_largest_numbers_do_no_harm() {
    let most = Situation {
        now_s: u64::MAX / 2,
        baseline_vru: u32::MAX,
        balance_millicredits: u64::MAX,
        funds_micro: u64::MAX,
        tick_micro: u64::MAX,
        price_ticks_max: u32::MAX,
        last_ticks: u32::MAX,
    };
    let far = Settings {
        horizon_s: HORIZON_S_MAX,
        offer_above_s: -THRESHOLD_S_MAX,
        request_below_s: -THRESHOLD_S_MAX,
        ..settings()
    };
    for demand in [0, u64::MAX] {
        for policy in [Policy::Fixed, Policy::Linear, Policy::Last] {
            let mut agent = Agent::new(Settings { policy, ..far.clone() }, None).unwrap();
            agent.observe(demand);
            assert!(agent.decide(&most).is_some());
            let empty = Situation { balance_millicredits: 0, ..most };
            assert!(agent.decide(&empty).is_some());
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |settings| Agent::new(settings, None).unwrap_err();
    for horizon_s in [0, HORIZON_S_MAX + 1] {
        assert_eq!(refused(Settings { horizon_s, ..settings() }), BadSettings::Horizon);
    }
    for (request_below_s, offer_above_s) in [(121, 120), (-THRESHOLD_S_MAX - 1, 0), (0, i32::MAX)] {
        let bad = Settings { request_below_s, offer_above_s, ..settings() };
        assert_eq!(refused(bad), BadSettings::Thresholds);
    }
    assert_eq!(refused(Settings { weights: vec![], ..settings() }), BadSettings::Weights);
    for (low_ticks, high_ticks) in [(0, 5), (6, 5)] {
        let bad = Settings { band: Band { low_ticks, high_ticks }, ..settings() };
        assert_eq!(refused(bad), BadSettings::Band);
    }
}
