//! The page: one HTML file that needs nothing else, for light and dark screens, without scripts.

use super::super::time::rfc3339;
use super::Period;
use super::plot::Chapter;
use super::tables::{Column, Table, shown};
use std::fmt::Write;

/// Rows of a table that the page shows at most; programs get all of them.
const ROWS_MAX: usize = 1000;

const STYLE: &str = "
:root{--ink:#1b1f24;--soft:#59636e;--paper:#fff;--rule:#d8dee4;--wash:#f6f8fa;color-scheme:light dark;
--c0:#0969da;--c1:#bc4c00;--c2:#1a7f37;--c3:#8250df;--c4:#cf222e;--c5:#7d6608;--c6:#0f7b80;--c7:#bf3989}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--paper:#0d1117;--rule:#30363d;
--wash:#161b22;--c0:#58a6ff;--c1:#f0883e;--c2:#3fb950;--c3:#bc8cff;--c4:#ff7b72;--c5:#d4b106;--c6:#39c5cf;
--c7:#f778ba}}
body{margin:2rem auto;padding:0 1rem;max-width:84rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2rem 0 .4rem}
p,small,.mark{color:var(--soft)}p{margin:.3rem 0}
.warning{color:var(--c1);font-weight:600}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.86rem;white-space:nowrap}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--rule);
font-variant-numeric:tabular-nums}
th{background:var(--wash);vertical-align:bottom}th small{display:block;font-weight:400}
.left{text-align:left}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr));gap:1.2rem}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}
.mark{fill:var(--soft);font-size:11px}.grid{stroke:var(--rule)}
.line{fill:none;stroke:currentColor;stroke-width:1.8}
.legend{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:0 1rem;font-size:.82rem}
.legend li::before{content:'\\2014\\00a0'}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}
.c5{color:var(--c5)}.c6{color:var(--c6)}.c7{color:var(--c7)}
";

/// Text as it may stand in the page, in attributes too. Control characters, which no page may have,
/// become `?`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            char => out.push(char),
        }
    }
    out
}

/// The page.
pub fn html(period: &Period, dry_run: bool, tables: &[Table], chapters: &[Chapter]) -> String {
    let (from, to) = (rfc3339(period.from_ns), rfc3339(period.to_ns));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Vendue: {from} to {to}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Vendue: report</h1>\n<p>{from} to {to}, in steps of {} s. Summed from the journal.</p>\n",
        period.step_s
    );
    if dry_run {
        out += "<p class=\"warning\">DRY RUN: no limit was written to this host.</p>\n";
    }
    let mut tables = tables.iter().filter(|table| table.shown);
    if let Some(house) = tables.next() {
        section(house, &mut out);
    }
    for chapter in chapters {
        let _ = writeln!(out, "<h2>{}</h2>", chapter.title);
        if chapter.plots.is_empty() {
            let _ = writeln!(out, "<p>{}</p>", chapter.empty);
            continue;
        }
        let _ = writeln!(out, "<div class=\"plots\">\n{}\n</div>", chapter.plots.join("\n"));
        if chapter.left_out > 0 {
            let _ = writeln!(out, "<p>{} more are left out here.</p>", chapter.left_out);
        }
    }
    tables.for_each(|table| section(table, &mut out));
    out + "</body>\n</html>\n"
}

fn side(column: &Column) -> &'static str {
    if column.left { " class=\"left\"" } else { "" }
}

fn section(table: &Table, out: &mut String) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "<h2>{}</h2>", table.title);
    if !table.note.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(&table.note));
    }
    if table.rows.is_empty() {
        *out += "<p>None.</p>\n";
        return;
    }
    let _ = write!(out, "<div class=\"scroll\"><table id=\"{}\"><thead><tr>", table.key);
    for column in table.columns {
        let unit = match column.unit {
            "" => String::new(),
            unit => format!(" <small>{unit}</small>"),
        };
        let _ = write!(out, "<th{}>{}{unit}</th>", side(column), column.head);
    }
    *out += "</tr></thead><tbody>\n";
    for row in table.rows.iter().take(ROWS_MAX) {
        *out += "<tr>";
        for (column, cell) in table.columns.iter().zip(row) {
            let _ = write!(out, "<td{}>{}</td>", side(column), escape(&shown(cell, column)));
        }
        *out += "</tr>\n";
    }
    *out += "</tbody></table></div>\n";
    if table.rows.len() > ROWS_MAX {
        let more = table.rows.len() - ROWS_MAX;
        let _ = writeln!(out, "<p>{more} more rows are in the CSV and JSON of this report.</p>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let wild = "</td><script>alert('x')</script>&amp;\"\u{1}\u{9b}";
        let tame = escape(wild);
        assert!(!tame.contains(['<', '>', '"', '\'', '\u{1}', '\u{9b}']), "{tame}");
        assert!(tame.contains("&amp;amp;"), "what looks escaped is escaped again: {tame}");
    }

    #[test]
    fn a_page_without_anything_is_whole() {
        let period = Period { from_ns: 1, to_ns: 2, step_s: 1 };
        let chapter = Chapter { title: "Prices", empty: "None", plots: Vec::new(), left_out: 0 };
        let page = html(&period, true, &[], &[chapter]);
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains("DRY RUN") && page.contains("<h2>Prices</h2>"));
        assert!(!page.contains("<script") && !page.contains("http"), "it needs nothing else");
    }
}
