//! Names and numbers: what a user writes becomes a number, what the daemon numbers gets its name.

use super::door::{Door, Trouble};
pub use hvctl::json::resource;
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// A number as is, or the number of the row with this name. Only digits are always a number.
fn find<Row>(
    what: &str,
    wanted: &str,
    rows: &[Row],
    name_of: impl Fn(&Row) -> &[u8],
    number_of: impl Fn(&Row) -> u32,
) -> Result<u32, Trouble> {
    let unknown = || Trouble::Refused(format!("no {what} {wanted:?}; see `hvctl {what} list`"));
    if is_number(wanted) {
        let number = wanted.parse::<u32>().map_err(|_| unknown())?;
        return rows.iter().map(&number_of).find(|&known| known == number).ok_or_else(unknown);
    }
    rows.iter().find(|row| text(name_of(row)) == wanted).map(number_of).ok_or_else(unknown)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A new name as the protocol's field.
///
/// # Errors
/// It is empty, too long, a number (numbers are always taken as such), or holds control
/// characters.
pub fn parse_new_name(name: &str) -> Result<[u8; NAME_BYTES], String> {
    if name.is_empty() || is_number(name) || name.chars().any(char::is_control) {
        return Err("a name is not empty, not a number and has no control characters".to_owned());
    }
    field(name).ok_or_else(|| format!("a name has at most {NAME_BYTES} bytes"))
}

/// A resource by its name.
///
/// # Errors
/// Says which there are.
pub fn parse_resource(name: &str) -> Result<Resource, String> {
    let found = Resource::ALL.iter().find(|resource| resource.text() == name);
    found.copied().ok_or_else(|| {
        let all: Vec<_> = Resource::ALL.iter().map(|resource| resource.text()).collect();
        format!("a resource is one of {}", all.join(", "))
    })
}

/// Groups 0..=63 as a mask: `all`, `none`, `0x2f`, or numbers and ranges such as `0,3,5-7`.
///
/// # Errors
/// Says what was wrong with the text.
pub fn parse_groups(text: &str) -> Result<u64, String> {
    let wrong =
        || "give all, none, a mask such as 0x2f, or groups 0..63 such as 0,3,5-7".to_owned();
    match text {
        "all" => return Ok(u64::MAX),
        "none" => return Ok(0),
        _ => {}
    }
    if let Some(hex) = text.strip_prefix("0x") {
        let digits = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return digits.then(|| u64::from_str_radix(hex, 16).ok()).flatten().ok_or_else(wrong);
    }
    let group = |text: &str| {
        is_number(text).then(|| text.parse::<u64>().ok()).flatten().filter(|&group| group < 64)
    };
    let mut mask = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = group(first).zip(group(last)).ok_or_else(wrong)?;
        if first > last {
            return Err(wrong());
        }
        mask |= (first..=last).fold(0, |mask, group| mask | 1 << group);
    }
    Ok(mask)
}

/// A mask of groups as [`parse_groups`] reads it.
pub fn groups(mask: u64) -> String {
    match mask {
        0 => return "none".to_owned(),
        u64::MAX => return "all".to_owned(),
        _ => {}
    }
    let mut parts = Vec::new();
    let mut group = 0;
    while group < 64 {
        let run = u64::from((mask >> group).trailing_ones());
        match run {
            0 => {}
            1 => parts.push(group.to_string()),
            _ => parts.push(format!("{group}-{}", group + run - 1)),
        }
        group += run + 1;
    }
    parts.join(",")
}

/// What the daemon has, for looking up names.
#[derive(Debug, Default)]
pub struct Directory {
    /// Accounts, in order of number.
    pub accounts: Vec<AccountRow>,
    /// Instances, in order of number.
    pub instances: Vec<InstanceRow>,
    /// Tiers, a row for each resource.
    pub tiers: Vec<TierRow>,
}

impl Directory {
    /// Asks the daemon for accounts, instances and tiers.
    pub fn read(door: &mut Door) -> Result<Directory, Trouble> {
        Ok(Directory {
            accounts: accounts(door)?,
            instances: instances(door)?,
            tiers: tiers(door)?,
        })
    }

    /// The account's name, or its number, or `-` for none.
    pub fn account(&self, number: u32) -> String {
        let found = self.accounts.iter().find(|row| row.account.get() == number);
        name_or_number(found.map(|row| &row.name), number)
    }

    /// The instance's name, or its number, or `-` for none.
    pub fn instance(&self, number: u32) -> String {
        let found = self.instances.iter().find(|row| row.instance.get() == number);
        name_or_number(found.map(|row| &row.name), number)
    }

    /// The tier's name, or its number.
    pub fn tier(&self, number: u16) -> String {
        let found = self.tiers.iter().find(|row| row.tier.get() == number);
        name_or_number(found.map(|row| &row.name), number.into())
    }

    /// `tier/resource` of a book, or its number, or `-` for none.
    pub fn book(&self, number: u16) -> String {
        let found = self.tiers.iter().find(|row| row.book.get() == number);
        match found {
            _ if number == ANY_BOOK => "-".to_owned(),
            Some(row) => format!("{}/{}", text(&row.name), resource(row.resource)),
            None => number.to_string(),
        }
    }

    /// The tier's row for a resource.
    pub fn tier_resource(&self, tier: u16, resource: u8) -> Option<&TierRow> {
        self.tiers.iter().find(|row| row.tier.get() == tier && row.resource == resource)
    }

    /// The instance's row.
    pub fn instance_row(&self, number: u32) -> Option<&InstanceRow> {
        self.instances.iter().find(|row| row.instance.get() == number)
    }
}

/// The name, or the number, or `-` for none.
pub fn name_or_number(name: Option<&[u8; NAME_BYTES]>, number: u32) -> String {
    match name {
        Some(name) => text(name).to_owned(),
        None if number == ANY => "-".to_owned(),
        None => number.to_string(),
    }
}

/// Every account.
pub fn accounts(door: &mut Door) -> Result<Vec<AccountRow>, Trouble> {
    door.pages(|from| QueryAccounts { from: from.into() })
}

/// Every instance.
pub fn instances(door: &mut Door) -> Result<Vec<InstanceRow>, Trouble> {
    door.pages(|from| QueryInstances { from: from.into() })
}

/// Every tier's resources.
pub fn tiers(door: &mut Door) -> Result<Vec<TierRow>, Trouble> {
    door.rows(&QueryTiers {})
}

/// An account's number.
pub fn find_account(wanted: &str, rows: &[AccountRow]) -> Result<u32, Trouble> {
    find("account", wanted, rows, |row| &row.name, |row| row.account.get())
}

/// An instance's number.
pub fn find_instance(wanted: &str, rows: &[InstanceRow]) -> Result<u32, Trouble> {
    find("instance", wanted, rows, |row| &row.name, |row| row.instance.get())
}

/// A tier's number.
pub fn find_tier(wanted: &str, rows: &[TierRow]) -> Result<u16, Trouble> {
    let number = find("tier", wanted, rows, |row| &row.name, |row| row.tier.get().into())?;
    Ok(number as u16)
}

/// A group's number.
pub fn find_group(wanted: &str, rows: &[GroupRow]) -> Result<u16, Trouble> {
    let number = find("swarm", wanted, rows, |row| &row.name, |row| row.group.get().into())?;
    Ok(number as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_find_their_row() {
        let account = |number: u32, name| AccountRow {
            account: number.into(),
            name: field(name).unwrap(),
            ..AccountRow::zeroed()
        };
        let rows = [account(0, "alice"), account(7, "bob"), account(9, "7")];
        assert_eq!(find_account("bob", &rows).unwrap(), 7);
        assert_eq!(find_account("7", &rows).unwrap(), 7);
        assert_eq!(find_account("0", &rows).unwrap(), 0);
        for unknown in ["Bob", "bo", "", "5", "99999999999", "-1"] {
            let trouble = find_account(unknown, &rows).unwrap_err().to_string();
            assert!(trouble.contains("hvctl account list"), "{trouble}");
        }
    }

    #[test]
    fn new_names_cannot_be_mistaken_for_numbers() {
        assert_eq!(text(&parse_new_name("web-1").unwrap()), "web-1");
        assert_eq!(parse_new_name(&"x".repeat(32)).unwrap(), [b'x'; 32]);
        for name in ["", "42", "a\nb", "a\0b", &"x".repeat(33), &"é".repeat(17)] {
            assert!(parse_new_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn groups_parse_and_show_the_same() {
        for (shown, mask) in [
            ("all", u64::MAX),
            ("none", 0),
            ("0", 1),
            ("63", 1 << 63),
            ("0,3,5-7", 0b1110_1001),
            ("0-62", u64::MAX >> 1),
            ("1-63", u64::MAX << 1),
        ] {
            assert_eq!(parse_groups(shown), Ok(mask), "{shown}");
            assert_eq!(groups(mask), shown);
        }
        assert_eq!(parse_groups("0x2f"), Ok(0x2f));
        assert_eq!(parse_groups("5,5-5,4"), Ok(0b11_0000));
        for wrong in ["", "64", "3-1", "1,", "-1", "1-", "a", "0x", "0x+1", "0x1ffffffffffffffff"] {
            assert!(parse_groups(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn resources_go_by_their_protocol_names() {
        for &resource in Resource::ALL {
            assert_eq!(parse_resource(resource.text()), Ok(resource));
        }
        assert!(parse_resource("CPU").unwrap_err().contains("block-io"));
        assert_eq!((resource(2).as_str(), resource(200).as_str()), ("block-io", "200"));
    }

    #[test]
    fn the_directory_names_what_it_knows_and_numbers_the_rest() {
        let tier = TierRow {
            tier: 2.into(),
            book: 5.into(),
            resource: 1,
            name: field("gold").unwrap(),
            ..TierRow::zeroed()
        };
        let directory = Directory { tiers: vec![tier], ..Directory::default() };
        assert_eq!(directory.book(5), "gold/memory");
        assert_eq!((directory.book(6), directory.book(ANY_BOOK)), ("6".into(), "-".into()));
        assert_eq!((directory.tier(2), directory.tier(3)), ("gold".into(), "3".into()));
        assert_eq!((directory.account(4), directory.account(ANY)), ("4".into(), "-".into()));
    }
}
