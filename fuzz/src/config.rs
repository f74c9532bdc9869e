//! Configuration files.

use std::path::Path;

use adit::config::{Mistake, Nowhere, check};

/// Room for the deepest path of keys, each cut to what fits a line.
const MAX_KEY: usize = 4096;
const MAX_PROBLEM: usize = 1024;

/// A text is complete settings or a report, and each mistake of a report is one line that says something and does not
/// grow with the text.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match check(text, Path::new("adit.yaml"), &Nowhere) {
        Ok(checked) => drop(format!("{checked:?}")),
        Err(report) => {
            assert!(!report.mistakes().is_empty(), "refused without a reason");
            report.mistakes().iter().for_each(|mistake| readable(mistake, text));
        }
    }
}

fn readable(mistake: &Mistake, text: &str) {
    let Mistake { line, key, problem } = mistake;
    assert!(*line <= text.split(['\n', '\r']).count() as u64, "beyond the end: {mistake:?}");
    assert!(!problem.is_empty() && problem.len() <= MAX_PROBLEM && key.len() <= MAX_KEY, "{mistake:?}");
    assert!(!key.chars().chain(problem.chars()).any(char::is_control), "more than a line: {mistake:?}");
}
