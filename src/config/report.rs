//! What is wrong with a file: every mistake at once, each with its place and what would be accepted.

use std::fmt;

/// One thing to change in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Counted from 1; 0 when the mistake belongs to the file as a whole.
    pub line: u64,
    /// Which setting, such as `egress[0].routes[1].prefix`; empty when the text is not YAML at all.
    pub key: String,
    /// What is wrong and what would be accepted, in words that follow the key.
    pub problem: String,
}

/// Every mistake of one file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: String,
    mistakes: Vec<Mistake>,
}

impl Report {
    /// Sorts by line; mistakes of one line stay in the order in which they were found.
    pub(super) fn new(file: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes.dedup();
        Self { file: file.to_owned(), mistakes }
    }

    /// A report that says one thing about the file as a whole.
    pub(super) fn whole_file(file: &str, problem: String) -> Self {
        Self::new(file, vec![Mistake { line: 0, key: String::new(), problem }])
    }

    /// The mistakes, in the order of their lines.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

/// One line per mistake: `file:line: key.path: problem; expected …`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if mistake.line > 0 {
                write!(f, ":{}", mistake.line)?;
            }
            if !mistake.key.is_empty() {
                write!(f, ": {}", mistake.key)?;
            }
            write!(f, ": {}", mistake.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// The text in quotes, without control characters and not longer than a line.
pub(super) fn quoted(text: &str) -> String {
    const MAX: usize = 100;
    let mut shown: String = text.chars().take(MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// A key, or the name of a variable, as it appears in a mistake: as written when it is a plain word, else quoted.
pub(super) fn shown_key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.…[]{}".contains(c);
    if !key.is_empty() && key.chars().all(plain) && key.len() <= 128 { key.to_owned() } else { quoted(key) }
}
