//! Amounts in few characters.

use super::sheet::{Cell, Tone};

/// From this share of time on waiting is worth a look, and from that on it is bad, thousandths.
const WAITED_PERMILLE: [u32; 2] = [100, 300];

/// Bytes as `512K`, `1.5M`, `20G`.
pub fn bytes(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    while unit + 1 < units.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    match tenths {
        0..100 if unit > 0 => format!("{}.{}{}", tenths / 10, tenths % 10, units[unit]),
        _ => format!("{}{}", tenths / 10, units[unit]),
    }
}

/// Thousandths as percent.
pub fn percent(permille: u32) -> String {
    format!("{}.{}%", permille / 10, permille % 10)
}

/// A share of time spent waiting.
pub fn waited(permille: Option<u32>) -> Cell {
    let tone = match permille {
        None => Tone::Dim,
        Some(permille) if permille >= WAITED_PERMILLE[1] => Tone::Bad,
        Some(permille) if permille >= WAITED_PERMILLE[0] => Tone::Warning,
        Some(_) => Tone::Plain,
    };
    Cell::maybe(permille, percent).toned(tone)
}

/// A price in ticks, or `-` for none.
pub fn ticks(price: u32) -> Cell {
    Cell::maybe(Some(price).filter(|&price| price != 0), |price| price.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_few_characters_at_any_size() {
        for (size, shown) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10 << 20, "10M"),
            (5 << 29, "2.5G"),
            (u64::MAX, "15E"),
        ] {
            assert_eq!(bytes(size), shown);
        }
        assert_eq!(percent(1000), "100.0%");
    }
}
