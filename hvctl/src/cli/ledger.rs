//! `hvctl ledger`: the house's lines, and whether each asset's sum to zero.

use super::amount::{CREDIT_DECIMALS, FUNDS_DECIMALS, decimal};
use super::door::{Reach, Trouble};
use super::json;
use super::names::{Directory, resource};
use super::output::Output;
use super::table::{left, right};
use std::collections::BTreeMap;
use vendue_wire::message::*;

/// Tier and resource of an asset; funds have [`ANY_BOOK`] and 255.
type Asset = (u16, u8);
const FUNDS: Asset = (ANY_BOOK, 255);

/// Prints the ledger; [`Trouble::Refused`] if an asset's lines do not sum to zero.
pub fn run(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let rows = door.rows::<LedgerRow>(&QueryLedger {})?;
    let asset_name = |asset: Asset| match asset {
        FUNDS => "funds".to_owned(),
        (tier, number) => format!("{}/{}", names.tier(tier), resource(number)),
    };
    let show = |asset: Asset, balance: i128| match asset {
        FUNDS => decimal(balance, FUNDS_DECIMALS),
        _ => decimal(balance, CREDIT_DECIMALS),
    };
    let lines = lines(&rows);
    let mut columns = vec![left("ASSET")];
    columns.extend(lines.iter().map(|line| right(&line.to_uppercase())));
    columns.push(right("SUM"));
    let mut list = out.list(&columns);
    for row in &rows {
        list.object(&json::ledger(&asset_name(asset(row)), asset(row) == FUNDS, row))?;
    }
    let sums = sums(&rows);
    for (&one, &sum) in &sums {
        let mut cells = vec![asset_name(one)];
        for line in &lines {
            let row = rows.iter().find(|row| asset(row) == one && text(&row.line) == *line);
            cells.push(row.map_or("-".to_owned(), |row| show(one, balance(row).into())));
        }
        cells.push(show(one, sum));
        list.cells(cells);
    }
    list.show()?;
    let off: Vec<_> = sums
        .iter()
        .filter(|(_, sum)| **sum != 0)
        .map(|(&asset, &sum)| format!("{} is off by {}", asset_name(asset), show(asset, sum)))
        .collect();
    if off.is_empty() {
        return Ok(());
    }
    Err(Trouble::Refused(format!("the ledger does not sum to zero: {}", off.join(", "))))
}

fn asset(row: &LedgerRow) -> Asset {
    (row.tier.get(), row.resource)
}

/// The balance with its sign.
fn balance(row: &LedgerRow) -> i64 {
    row.balance.get() as i64
}

/// The names of the lines, each once, in the order they come.
fn lines(rows: &[LedgerRow]) -> Vec<&str> {
    let mut lines = Vec::new();
    for row in rows {
        let line = text(&row.line);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The sum of each asset's lines.
fn sums(rows: &[LedgerRow]) -> BTreeMap<Asset, i128> {
    let mut sums = BTreeMap::new();
    for row in rows {
        *sums.entry(asset(row)).or_default() += i128::from(balance(row));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asset_is_summed_by_itself_and_with_its_sign() {
        let line = |(tier, resource): Asset, balance: i64| LedgerRow {
            balance: (balance as u64).into(),
            tier: tier.into(),
            resource,
            ..LedgerRow::zeroed()
        };
        let rows = [
            line(FUNDS, -70),
            line((0, 0), i64::MIN),
            line(FUNDS, 69),
            line((0, 1), 5),
            line((0, 0), i64::MAX),
            line((0, 1), -5),
        ];
        assert_eq!(sums(&rows), BTreeMap::from([(FUNDS, -1), ((0, 0), -1), ((0, 1), 0)]));
    }
}
