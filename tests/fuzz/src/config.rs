//! Text as a configuration: any text, and the defaults with some lines changed.

use arbitrary::{Result, Unstructured};
use vendue_engine::config::{Config, ConfigError, DEFAULT};

/// Values that stand where another belongs.
const VALUES: [&str; 24] = [
    "0",
    "1",
    "-1",
    "9",
    "1.5",
    "4096",
    "65535",
    "65536",
    "1073741824",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "true",
    "nan",
    "\"\"",
    "\"cpu\"",
    "\"\\u0000\"",
    "\"é\"",
    "[]",
    "[[]]",
    "{}",
    "{ capacity_vru = 1 }",
    "{ wait = \"spin\", cpu = 1 }",
];

/// Longest line whose numbers are exchanged: each may become several.
const LINE_BYTES_MAX: usize = 200;

/// Text of the first kind if the first byte is even, of the second if it is odd.
///
/// # Panics
/// When a configuration is taken that cannot be used, or a refusal does not say where.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((kind, rest)) if kind.is_multiple_of(2) => {
            if let Ok(text) = std::str::from_utf8(rest) {
                check(text);
            }
        }
        Some((_, rest)) => {
            if let Ok(text) = changed(&mut Unstructured::new(rest)) {
                check(&text);
            }
        }
        None => {}
    }
}

/// The defaults with some lines changed.
fn changed(bytes: &mut Unstructured<'_>) -> Result<String> {
    let mut lines: Vec<String> = DEFAULT.lines().map(str::to_owned).collect();
    while !bytes.is_empty() && !lines.is_empty() {
        let at = bytes.choose_index(lines.len())?;
        match bytes.int_in_range(0..=7_u8)? {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[bytes.choose_index(lines.len())?].clone()),
            2 => lines[at].insert_str(0, bytes.arbitrary::<&str>()?),
            3 => lines[at] = lines[at].trim_start_matches("# ").to_owned(),
            4 if lines[at].len() < LINE_BYTES_MAX => {
                lines[at] = lines[at].replace(char::is_numeric, bytes.choose(&VALUES)?)
            }
            _ => {
                if let Some((key, _)) = lines[at].split_once(" = ") {
                    lines[at] = format!("{key} = {}", bytes.choose(&VALUES)?);
                }
            }
        }
    }
    Ok(lines.join("\n"))
}

fn check(text: &str) {
    match Config::parse("fuzzed", text) {
        Ok(config) => {
            assert_eq!(config.genesis().check(), Ok(()));
            let books = config.books();
            assert!(!books.is_empty() && books.iter().all(|book| book.check().is_ok()));
            let again = Config::parse("again", text).expect("it parsed before");
            assert!(again.table == config.table && again.books() == books);
        }
        Err(ConfigError::Value { line, reason, .. }) => {
            assert!(line >= 1 && line <= text.matches('\n').count() + 1 && !reason.is_empty());
        }
        Err(error) => assert!(error.to_string().starts_with("fuzzed")),
    }
}
