//! Text in columns. Cells may hold what a peer wrote, so control characters never reach the terminal.

/// Rows below a heading; each column is as wide as its widest cell, and lines have no blanks at their end.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let heading = heading.map(str::to_owned);
    let width = |column: usize| {
        std::iter::once(&heading).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    std::iter::once(&heading).chain(&rows).map(line).collect()
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
        assert_eq!(table(["X", "YYY"], &rows), "X         YYY\na         bé\nlong\u{fffd}[2J\n");
    }
}
