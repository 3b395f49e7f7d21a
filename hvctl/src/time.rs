//! Times as RFC 3339 in UTC. Dates are counted as in Howard Hinnant, "chrono-compatible low-level
//! date algorithms": years of 365.2425 days that begin in March, in eras of 400 years.

const DAY_SECONDS: u64 = 86_400;
const NANOS: u64 = 1_000_000_000;

/// Nanoseconds since 1970 UTC as `2026-01-31T12:00:00.123456789Z`, or `-` for 0 ("never").
pub fn rfc3339(time_ns: u64) -> String {
    if time_ns == 0 {
        return "-".to_owned();
    }
    let (seconds, nanos) = (time_ns / NANOS, time_ns % NANOS);
    let (year, month, day) = civil(seconds / DAY_SECONDS);
    let second = seconds % DAY_SECONDS;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Parses `2026-01-31T12:00:00Z`, with up to three decimals of the second, into milliseconds
/// since 1970 UTC.
///
/// # Errors
/// Says what a time looks like.
pub fn parse_ms(text: &str) -> Result<u64, String> {
    parse(text).ok_or_else(|| "give a time in UTC such as 2026-01-31T12:00:00Z".to_owned())
}

fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, part) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let [part_number] = numbers(part, '.', [part.len()])?;
    if hour > 23 || minute > 59 || second > 59 || !(1..=3).contains(&part.len()) || year < 1970 {
        return None;
    }
    let days = days(year, month, day);
    // A date that is none (31 April, 29 February) comes back as another one.
    if civil(days) != (year, month, day) {
        return None;
    }
    let ms = part_number * 10_u64.pow(3 - part.len() as u32);
    Some((days * DAY_SECONDS + hour * 3600 + minute * 60 + second) * 1000 + ms)
}

/// Exactly these many numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut out = [0; N];
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(out)
}

/// Year, month and day of a day since 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day - (153 * march + 2) / 5 + 1)
}

/// Days since 1970 of a date from 1970 on; a month of 0 or above 12 gives another date's number.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let march = (month + 9) % 12;
    let year = year - u64::from(month <= 2);
    let (era, year) = (year / 400, year % 400);
    era * 146_097 + year * 365 + year / 4 - year / 100 + (153 * march + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_shown_right() {
        for (seconds, shown) in [
            (1, "1970-01-01T00:00:01.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_000_000_000, "2001-09-09T01:46:40.000000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * NANOS), shown);
        }
        assert_eq!(rfc3339(NANOS + 5), "1970-01-01T00:00:01.000000005Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
        assert_eq!(rfc3339(0), "-");
    }

    #[test]
    fn every_day_for_centuries_parses_back() {
        for day in 1..200_000 {
            let shown = rfc3339(day * DAY_SECONDS * NANOS);
            let (date, _) = shown.split_once('.').unwrap();
            assert_eq!(parse_ms(&format!("{date}Z")), Ok(day * DAY_SECONDS * 1000), "{shown}");
        }
    }

    #[test]
    fn decimals_of_the_second_are_milliseconds() {
        for (text, ms) in [("01Z", 1000), ("01.5Z", 1500), ("01.05Z", 1050), ("01.005Z", 1005)] {
            assert_eq!(parse_ms(&format!("1970-01-01T00:00:{text}")), Ok(ms));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00+01:00",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-13-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-1-01T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234Z",
            "1969-12-31T23:59:59Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert!(parse_ms(text).is_err(), "{text:?}");
        }
    }
}
