//! Reads Rust source as a scan for names needs it: comments and literals blanked out, line for line.

/// `text` with comments, string and character literals replaced by spaces; line breaks stay where they are.
pub(crate) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = match skipped(rest) {
            Some(length) => (length, false),
            None => (word(rest).unwrap_or_else(|| first.len_utf8()), true),
        };
        let (piece, tail) = rest.split_at(length);
        if is_code {
            out.push_str(piece)
        } else {
            out.extend(piece.chars().map(|c| if c == '\n' { c } else { ' ' }))
        }
        rest = tail;
    }
    out
}

/// Everything before the first inline test module.
pub(crate) fn without_tests(code: &str) -> &str {
    match code.find("#[cfg(test)]\nmod tests {") {
        Some(start) => &code[..start],
        None => code,
    }
}

/// The length of the comment or literal that starts here.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let opens_string = |prefix: &str| {
        rest.strip_prefix(prefix).is_some_and(|tail| match prefix.ends_with('r') {
            true => tail.trim_start_matches('#').starts_with('"'),
            false => tail.starts_with('"'),
        })
    };
    match ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| opens_string(prefix)) {
        Some(prefix) if prefix.ends_with('r') => Some(prefix.len() + raw_string(&rest[prefix.len()..])),
        Some(prefix) => Some(prefix.len() + string(&rest[prefix.len()..])),
        None => character(rest),
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `"…"`, where a backslash takes the next character along.
fn string(rest: &str) -> usize {
    let mut escaped = true; // the opening quote does not end it
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `#"…"#` with any number of `#`.
fn raw_string(rest: &str) -> usize {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    rest[hashes + 1..].find(&end).map_or(rest.len(), |at| hashes + 1 + at + end.len())
}

/// `'x'` or `'\n'`, and not the lifetime `'a`.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        return escape.char_indices().skip(1).find(|(_, c)| *c == '\'').map(|(at, _)| at + 3);
    }
    let c = inner.chars().next()?;
    inner[c.len_utf8()..].starts_with('\'').then_some(c.len_utf8() + 2)
}

/// The length of the identifier that starts here, so that the `r` of `for"…"` is not taken for a raw string.
fn word(rest: &str) -> Option<usize> {
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (length > 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_vanish_and_lines_stay() {
        assert_eq!(code_only("é/* é */é"), format!("é{}é", " ".repeat(7)));
        assert_eq!(code_only("a // crate::x\nb"), format!("a {}\nb", " ".repeat(11)));
        assert_eq!(code_only("a/* x /* y */\nz */b"), format!("a{}\n{}b", " ".repeat(12), " ".repeat(4)));
    }

    #[test]
    fn strings_of_all_kinds_vanish() {
        for literal in [r#""a\"b//""#, r##"r#"a"b"#"##, r#"b"x""#, r#"br"x\""#, "'\"'", r"'\''", r"'\u{41}'"] {
            let code = code_only(&format!("f({literal}); crate::x"));
            assert_eq!(code, format!("f({}); crate::x", " ".repeat(literal.len())), "{literal}");
        }
    }

    #[test]
    fn lifetimes_and_urls_do_not_hide_code() {
        assert_eq!(code_only("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert!(code_only(r#"g("http://x"); crate::y"#).ends_with("crate::y"));
    }

    #[test]
    fn inline_tests_are_cut_off() {
        assert_eq!(without_tests("fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::app;\n}"), "fn f() {}\n");
    }
}
