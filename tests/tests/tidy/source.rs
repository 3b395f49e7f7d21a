//! Source files as the rules look at them: text, and code without comments and literals.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository.
pub struct Source {
    /// Path from the top of the repository.
    pub path: String,
    /// As it is.
    pub text: String,
    /// For Rust: the text with comments and literals blanked. Lines keep their numbers.
    pub code: String,
}

impl Source {
    /// The file `path` with this text.
    pub fn new(path: &str, text: &str) -> Source {
        let code = if path.ends_with(".rs") { without_text(text) } else { String::new() };
        Source { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The same file with its `#[cfg(test)]` modules blanked.
    pub fn without_tests(&self) -> Source {
        let (path, text) = (self.path.clone(), self.text.clone());
        Source { path, text, code: without_tests(&self.code) }
    }

    /// True for Rust that is built into a library or a program, not into a test or a bench.
    pub fn is_shipped_rust(&self) -> bool {
        let test_part = |part: &str| {
            matches!(part, "tests" | "benches" | "examples" | "tests.rs" | "loom_tests.rs")
        };
        self.path.ends_with(".rs") && !self.path.split('/').any(test_part)
    }

    /// Numbered lines of code.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// A finding on line `line`.
    pub fn finding(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// Functions: name and lines, outer ones before those inside them.
    pub fn functions(&self) -> Vec<(String, RangeInclusive<usize>)> {
        let code = &self.code;
        let line_of = |at: usize| code[..at].matches('\n').count() + 1;
        let mut found = Vec::new();
        for (at, _) in words(code).filter(|(_, word)| *word == "fn") {
            let Some((_, name)) = words(&code[at..]).nth(1) else { continue };
            let Some(end) = block_end(code, at) else { continue };
            found.push((name.to_owned(), line_of(at)..=line_of(end)));
        }
        found
    }
}

/// The top of the repository.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the tests' package lies in the repository")
}

/// Paths of all files of the repository: tracked, or new and not ignored.
pub fn paths() -> Vec<String> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"];
    let output = Command::new("git").args(arguments).current_dir(root()).output();
    let output = output.expect("git runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git ls-files, in a clone of the repository: {error}");
    let paths = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let exists = |path: &&str| root().join(path).is_file();
    paths.lines().filter(exists).map(str::to_owned).collect()
}

/// Every text file of the repository.
pub fn all() -> Vec<Source> {
    let read = |path: String| {
        let text = String::from_utf8(std::fs::read(root().join(&path)).expect(&path)).ok()?;
        Some(Source::new(&path, &text))
    };
    paths().into_iter().filter_map(read).collect()
}

/// The identifiers of a piece of code, keywords included, with where they start.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let part = |char: char| char == '_' || char.is_ascii_alphanumeric();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(part)?;
        let rest = &code[start..];
        at = start + rest.find(|char| !part(char)).unwrap_or(rest.len());
        Some((start, &code[start..at]))
    })
}

/// True if `code` has the identifier `word`.
pub fn has_word(code: &str, word: &str) -> bool {
    words(code).any(|(_, found)| found == word)
}

/// Where the block that opens first after `from` ends; `None` if a `;` comes first.
fn block_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, char) in code[from..].char_indices() {
        match char {
            // `;` inside brackets is an array's length.
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth = depth.checked_sub(1)?,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(from + at);
                }
            }
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Rust code with comments and the insides of literals replaced by spaces.
fn without_text(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&char| if char == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` if none starts here.
fn literal_end(chars: &[char], at: usize) -> usize {
    let get = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let in_word = at > 0 && (get(at - 1) == '_' || get(at - 1).is_ascii_alphanumeric());
    match (get(at), get(at + 1)) {
        ('/', '/') => (at..chars.len()).find(|&index| get(index) == '\n').unwrap_or(chars.len()),
        ('/', '*') => comment_end(chars, at),
        ('"', _) => quote_end(chars, at, '"'),
        // A lifetime has no closing quote right after its first character.
        ('\'', '\\') => quote_end(chars, at, '\''),
        ('\'', _) if get(at + 2) == '\'' => at + 3,
        ('r', '"' | '#') if !in_word || matches!(get(at - 1), 'b' | 'c') => raw_end(chars, at),
        _ => at,
    }
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn quote_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            char if char == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a raw string, or `start` if it is none (`r#name`, or a word that ends in r).
fn raw_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&char| char == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let closes = |&at: &usize| {
        chars[at] == '"'
            && chars[at + 1..].iter().take(hashes).filter(|&&char| char == '#').count() == hashes
    };
    (open + 1..chars.len()).find(closes).map_or(chars.len(), |at| at + 1 + hashes)
}

/// Code whose `#[cfg(test)] mod ... { }` (also with more conditions) are blanked.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (at, _) in code.match_indices("#[cfg(") {
        let Some(length) = code[at..].find(")]") else { continue };
        let after = at + length + 2;
        let is_module = code[after..].trim_start().starts_with("mod ");
        if !is_module || !has_word(&code[at..after], "test") {
            continue;
        }
        if let Some(end) = block_end(code, after) {
            // As many bytes as before, so that later positions hold.
            let blank = |byte| if byte == b'\n' { '\n' } else { ' ' };
            let blanked: String = code[after..=end].bytes().map(blank).collect();
            out.replace_range(after..=end, &blanked);
        }
    }
    out
}

#[test]
fn comments_literals_and_tests_are_blanked_and_lines_kept() {
    let text = r####"
fn a() { let s = "unsafe { \" "; } // unsafe
/* unsafe /* nested */ unsafe */ fn b<'a>(x: &'a str) -> char { '"' }
fn c() -> &'static [u8] { br#"unsafe "quoted" "# }
fn d() { let c = '\''; let kept = 1; }
#[cfg(all(test, not(loom)))]
mod tests { fn t() { gone(); } }
fn e() { r#type(); "multi
line"; }
"####;
    let whole = Source::new("x.rs", text);
    assert!(has_word(&whole.code, "gone"), "{}", whole.code);
    let source = whole.without_tests();
    assert!(!has_word(&source.code, "unsafe"), "{}", source.code);
    assert!(!has_word(&source.code, "gone"), "{}", source.code);
    for word in ["a", "b", "c", "d", "e", "kept", "type"] {
        assert!(has_word(&source.code, word), "{word}: {}", source.code);
    }
    assert_eq!(source.code.lines().count(), text.lines().count());
    let functions = source.functions();
    assert_eq!(functions.last(), Some(&("e".to_owned(), 8..=9)), "{functions:?}");
}
