//! The file of the nodes that are gone: since when, who, and why, a line each, the one that is gone for the longest time first.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::responder::{Gone, GoneNodes, MAX_GONE};

use super::{MAX_LINE, claim, line, write};

/// The most characters of a reason that are written down; it is for one line of a table.
const MAX_REASON: usize = 300;
/// The longest line: a time, the ids, and a reason of characters of up to four bytes.
const MAX_GONE_LINE: usize = 24 + MAX_LINE + 4 * MAX_REASON;

/// A list and its copy in a file.
pub(super) struct Written {
    file: PathBuf,
    gone: GoneNodes,
    /// The list as it was when the file was last written.
    at: u64,
}

impl Written {
    /// The file is taken for a copy of what the list is now.
    pub(super) fn new(file: PathBuf, gone: GoneNodes) -> Self {
        Self { file, at: gone.changes(), gone }
    }

    /// Writes the file again if the list has changed. Not cancel safe: a file may be written without its being known.
    pub(super) async fn refresh(&mut self) {
        let changes = self.gone.changes();
        if changes == self.at {
            return;
        }
        let (file, gone) = (self.file.clone(), self.gone.clone());
        let written = tokio::task::spawn_blocking(move || write(&file, &text(&gone.list()))).await;
        match written {
            Ok(Err(error)) => warn!(%error, file = %self.file.display(), "cannot write down which nodes are gone"),
            _ => self.at = changes,
        }
    }
}

/// Reads the file, if it is there, into the list.
///
/// # Errors
/// It cannot be read.
pub(super) fn load(file: &Path, gone: &GoneNodes) -> io::Result<()> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    opened.take((MAX_GONE * MAX_GONE_LINE) as u64).read_to_end(&mut bytes)?;
    let now = SystemTime::now();
    let nodes = String::from_utf8_lossy(&bytes);
    // Who left in the future did so while this clock was wrong.
    for node in nodes.lines().filter_map(parse).filter(|gone| gone.since <= now).take(MAX_GONE) {
        gone.remember(node);
    }
    Ok(())
}

/// `list`: the one that left last first.
fn text(list: &[Gone]) -> String {
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = |gone: &Gone| format!("{} {} {}\n", seconds(gone.since), line(&gone.claim), plain(&gone.reason));
    list.iter().rev().map(text).collect()
}

fn plain(reason: &str) -> String {
    reason.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What is not such a line is passed over.
fn parse(text: &str) -> Option<Gone> {
    let (since, rest) = text.split_once(' ')?;
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since.parse().ok()?))?;
    let ids = rest.splitn(4, ' ').take(3).map(str::len).sum::<usize>() + 2;
    let (ids, reason) = rest.split_at_checked(ids)?;
    Some(Gone { claim: claim(ids)?, since, reason: plain(reason.strip_prefix(' ')?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(node: &str, since: u64, reason: &str) -> Gone {
        let claim = claim(&format!("acme stores {node}")).unwrap();
        Gone { claim, since: SystemTime::UNIX_EPOCH + Duration::from_secs(since), reason: reason.to_owned() }
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let (file, list) = (folder.path().join("gone"), GoneNodes::default());
        load(&file, &list).unwrap();
        let mut written = Written::new(file.clone(), list.clone());
        written.refresh().await;
        assert!(!file.exists(), "nothing has changed");
        list.remember(gone("a", 10, "idle: nothing was heard"));
        list.remember(gone("b", 20, ""));
        written.refresh().await;
        let again = GoneNodes::default();
        load(&file, &again).unwrap();
        assert_eq!(again.list(), [gone("b", 20, ""), gone("a", 10, "idle: nothing was heard")]);
    }

    #[test]
    fn a_reason_stays_on_its_line_and_what_is_no_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (file, list) = (folder.path().join("gone"), GoneNodes::default());
        let odd = text(&[gone("a", 10, &format!("one\ntwo\u{1b}[31m {}", "ü".repeat(1000)))]);
        assert_eq!(odd.lines().count(), 1);
        assert!(odd.len() <= MAX_GONE_LINE, "{}", odd.len());
        let noise = "\n \n10\n10 acme\n10 acme stores\nx acme stores b why\n-1 acme stores b why\n10 acme sto:res b why\n\
                     99999999999999999999 acme stores b why\n9999999999999 acme stores b why\n10 acme stores c\n\u{fffd}\n";
        std::fs::write(&file, format!("{noise}{odd}")).unwrap();
        load(&file, &list).unwrap();
        let names: Vec<_> = list.list().into_iter().map(|gone| gone.claim.node.to_string()).collect();
        assert_eq!(names, ["a"]);
    }
}
