//! Amounts as people write them, exactly: decimals without floats, VRUs in natural units.

use vendue_wire::code::Resource;

/// Decimals of funds: a unit is a million micro-units.
pub const FUNDS_DECIMALS: u32 = 6;
/// Decimals of credits: a credit is a thousand milli-credits.
pub const CREDIT_DECIMALS: u32 = 3;

/// Parses `12.5` as 12500000 micro-units of funds.
///
/// # Errors
/// Says what was wrong with the text.
pub fn parse_funds(text: &str) -> Result<u64, String> {
    parse_decimal(text, FUNDS_DECIMALS)
}

/// Parses `12.5` as 12500 milli-credits.
///
/// # Errors
/// Says what was wrong with the text.
pub fn parse_credits(text: &str) -> Result<u64, String> {
    parse_decimal(text, CREDIT_DECIMALS)
}

/// Parses a decimal number into whole units of its last decimal.
fn parse_decimal(text: &str, decimals: u32) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || text.ends_with('.') {
        return Err(format!("give a number such as 12.5, with at most {decimals} decimals"));
    }
    if part.len() > decimals as usize {
        return Err(format!("{} decimals, but the smallest unit has {decimals}", part.len()));
    }
    let missing = decimals - part.len() as u32;
    format!("{whole}{part}")
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(10_u64.pow(missing)))
        .ok_or_else(|| "more than can be counted".to_owned())
}

/// Micro-units of funds as units with six decimals.
pub fn funds(micro: u64) -> String {
    decimal(micro.into(), FUNDS_DECIMALS)
}

/// Milli-credits as credits with three decimals.
pub fn credits(milli: u64) -> String {
    decimal(milli.into(), CREDIT_DECIMALS)
}

/// A count of the last decimal's units as a decimal number.
pub fn decimal(value: i128, decimals: u32) -> String {
    let unit = 10_u128.pow(decimals);
    let (sign, size) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    format!("{sign}{}.{:0width$}", size / unit, size % unit, width = decimals as usize)
}

/// VRUs in the resource's own unit: millicores, MiB, MiB/s, Mbit/s or slots. `vru_size` is the
/// size of one in millicores, bytes, bytes/s, bits/s or slots.
pub fn natural(resource: Option<Resource>, vru: u64, vru_size: u64) -> String {
    const MEBI: u128 = 1 << 20;
    const MEGA: u128 = 1_000_000;
    let size = u128::from(vru) * u128::from(vru_size);
    match resource {
        Some(Resource::Cpu) => format!("{size}m"),
        Some(Resource::Memory) => format!("{} MiB", tenths(size, MEBI)),
        Some(Resource::BlockIo) => format!("{} MiB/s", tenths(size, MEBI)),
        Some(Resource::Network) => format!("{} Mbit/s", tenths(size, MEGA)),
        Some(Resource::Accelerator) => format!("{size} slots"),
        None => format!("{vru} VRU"),
    }
}

/// `size / unit`, with one decimal if it is not whole.
fn tenths(size: u128, unit: u128) -> String {
    if size.is_multiple_of(unit) {
        return (size / unit).to_string();
    }
    format!("{}.{}", size / unit, size % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_to_the_last_unit() {
        for (text, micro) in [
            ("0", 0),
            ("1", 1_000_000),
            ("0.1", 100_000),
            ("0.000001", 1),
            ("12.345678", 12_345_678),
            ("007.50", 7_500_000),
            ("18446744073709.551615", u64::MAX),
        ] {
            assert_eq!(parse_funds(text), Ok(micro), "{text}");
        }
        assert_eq!(parse_credits("2.5"), Ok(2500));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", "0x1", " 1", "1.2.3", "1.0000001", "١"]
        {
            assert!(parse_funds(text).is_err(), "{text:?}");
        }
        assert!(parse_credits("0.0001").unwrap_err().contains("3"));
        for text in ["18446744073709.551616", "99999999999999999999999"] {
            assert!(parse_funds(text).unwrap_err().contains("more than"), "{text}");
        }
    }

    #[test]
    fn shown_amounts_parse_back_to_themselves() {
        for micro in [0, 1, 999_999, 1_000_000, 12_345_678, u64::MAX] {
            assert_eq!(parse_funds(&funds(micro)), Ok(micro));
            assert_eq!(parse_credits(&credits(micro)), Ok(micro));
        }
        assert_eq!(decimal(-1_500_000, 6), "-1.500000");
        assert_eq!(decimal(i64::MIN.into(), 3), "-9223372036854775.808");
    }

    #[test]
    fn vrus_are_shown_in_the_units_of_their_resource() {
        let shown = |resource, vru, size| natural(Some(resource), vru, size);
        assert_eq!(shown(Resource::Cpu, 25, 10), "250m");
        assert_eq!(shown(Resource::Memory, 4, 16 << 20), "64 MiB");
        assert_eq!(shown(Resource::BlockIo, 3, 1 << 19), "1.5 MiB/s");
        assert_eq!(shown(Resource::Network, 8, 1_000_000), "8 Mbit/s");
        assert_eq!(shown(Resource::Accelerator, 2, 1), "2 slots");
        assert_eq!(natural(None, 7, 1), "7 VRU");
        let most = natural(Some(Resource::Memory), u64::MAX, u64::MAX);
        assert!(most.ends_with(" MiB"), "{most}");
    }
}
