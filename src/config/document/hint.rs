//! What the author of a text that is not YAML most likely overlooked; the parser only notices where it is lost.

use crate::config::report::Mistake;

/// A mistake that explains why nothing could be read up to `line`, if there is a usual one.
pub(super) fn of(text: &str, line: u64) -> Option<Mistake> {
    open_quote(text).or_else(|| bare_reference(text, line))
}

/// A quote that is opened and never closed: the parser notices it at the end of the text, or at the next quote.
fn open_quote(text: &str) -> Option<Mistake> {
    let found = (1..).zip(text.lines()).find(|(_, line)| has_open_quote(line));
    found.map(|(line, _)| Mistake {
        line,
        key: String::new(),
        problem: "cannot be read as YAML: a quote is opened and not closed in this line; expected its other end"
            .to_owned(),
    })
}

/// Whether a quoted value begins in this line and does not end in it. A quote begins a value only where one can stand.
fn has_open_quote(line: &str) -> bool {
    let mut open: Option<char> = None;
    let mut before = ' ';
    let mut significant = ':';
    let mut escaped = false;
    for c in line.chars() {
        match open {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(quote) if c == quote => open = None,
            Some(_) => {}
            None if c == '#' && before == ' ' => return false,
            // A doubled single quote closes and opens again.
            None if (c == '"' || c == '\'') && (":,[{-?\'".contains(significant)) => open = Some(c),
            None => {}
        }
        if !c.is_whitespace() {
            significant = c;
        }
        before = c;
    }
    open.is_some()
}

/// `{ count: ${COUNT} }`: between braces, those of the reference mean something to YAML.
fn bare_reference(text: &str, line: u64) -> Option<Mistake> {
    let numbered = || (1..).zip(text.lines());
    let is_bare = |line: &str| {
        line.split("${")
            .next()
            .is_some_and(|before| before.len() < line.len() && before.contains(['{', '[']) && !has_open_quote(before))
    };
    let near = numbered().filter(|(number, _)| *number <= line || line == 0);
    let (line, _) = near.filter(|(_, text)| is_bare(text)).last()?;
    Some(Mistake {
        line,
        key: String::new(),
        problem: "cannot be read as YAML: between braces a reference must be quoted; expected \"${NAME}\"".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_quote_is_found_in_its_own_line() {
        let found = of("a: 1\nb: \"x\nc: \"y\"\n", 3).unwrap();
        assert_eq!(found.line, 2);
        assert_eq!(of("a: it's\nb: 'it''s'\nc: \"a\\\"b\" # don't\nd: [\"x\", 'y'] \n", 9), None);
    }

    #[test]
    fn a_reference_between_braces_must_be_quoted() {
        let found = of("a: 1\nb: { count: ${COUNT} }\n", 2).unwrap();
        assert_eq!(found.line, 2);
        assert!(found.problem.contains("expected \"${NAME}\""));
        assert_eq!(of("b: { count: \"${COUNT}\" }\nc: ${NAME}\n", 2), None);
    }
}
