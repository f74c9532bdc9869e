//! Text in columns. Cells may hold what a peer wrote, so control characters never reach the terminal.

/// The narrowest that a column of names may become.
const MIN_SHRUNK: usize = 8;
const GAP: &str = "  ";

/// Rows below a heading; each column is as wide as its widest cell, and lines have no blanks at their end. Where a line is
/// wider than `width`, the widest of the columns `names` is cut until it fits, with an ellipsis.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]], width: usize, names: &[usize]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let heading = heading.map(str::to_owned);
    let widest = |column: usize| {
        std::iter::once(&heading).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let mut widths: [usize; N] = std::array::from_fn(widest);
    while widths.iter().sum::<usize>() + GAP.len() * (N - 1) > width {
        let widest =
            names.iter().copied().filter(|column| widths[*column] > MIN_SHRUNK).max_by_key(|column| widths[*column]);
        let Some(column) = widest else { break };
        widths[column] -= 1;
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", cut(cell, width)));
        format!("{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
    };
    std::iter::once(&heading).chain(&rows).map(line).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Words in lines of at most `width`, each behind `indent`.
pub(super) fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in printable(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_control_characters_are_replaced() {
        let rows = [["a".to_owned(), "bé".to_owned()], ["long\u{1b}[2J".to_owned(), String::new()]];
        assert_eq!(table(["X", "YYY"], &rows, 80, &[]), "X         YYY\na         bé\nlong\u{fffd}[2J\n");
    }

    #[test]
    fn names_are_cut_where_a_line_is_too_long_and_numbers_never() {
        let rows = [["a-node-with-a-long-name".to_owned(), "cluster-name".to_owned(), "12345678901234".to_owned()]];
        let text = table(["NODE", "CLUSTER", "N"], &rows, 40, &[0, 1]);
        assert_eq!(text.lines().nth(1).unwrap(), "a-node-wit…  cluster-na…  12345678901234");
        assert_eq!(wrapped("one two three", "  ", 9), "  one two\n  three\n");
    }
}
