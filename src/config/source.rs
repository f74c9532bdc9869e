//! A file as a source of checked settings, which can be read again when it has changed.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::report::Report;
use crate::config::sight::Sights;
use crate::config::surroundings::{Process, Surroundings, can_be_read_again};
use crate::config::{Checked, load};

/// Where the settings of a process come from, and what was seen when they were read last.
///
/// It is cheap to clone; clones are one source. Everything that a reading opens is noted before it is opened: the file itself,
/// certificates, keys, revocation lists, and what `file:` refers to. So [`Source::seen`] is never newer than what was read, and
/// whoever compares it with [`Sights::again`] misses no change.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

struct Inner {
    path: PathBuf,
    surroundings: Box<dyn Surroundings + Send + Sync>,
    seen: Mutex<Option<Sights>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Source {
    /// A file, with the environment and the file system of this process.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(path, Process)
    }

    /// A file, and where its references are looked up.
    pub fn new(path: impl Into<PathBuf>, surroundings: impl Surroundings + Send + Sync + 'static) -> Self {
        let surroundings = Box::new(surroundings);
        Self(Arc::new(Inner { path: path.into(), surroundings, seen: Mutex::default() }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads and checks the file as it is now, as [`load`] does. Waits for the disk.
    ///
    /// # Errors
    /// Every mistake in the file, or that it cannot be read; a second time also that it is a pipe, which is empty then.
    pub fn load(&self) -> Result<Checked, Report> {
        let Inner { path, surroundings, .. } = &*self.0;
        if self.lock().is_some() && !can_be_read_again(path) {
            let name = path.display().to_string();
            return Err(Report::whole_file(&name, "is a pipe, which can be read once; expected a file".to_owned()));
        }
        let noting = Noting { surroundings: &**surroundings, seen: RefCell::default() };
        if can_be_read_again(path) {
            noting.note(path);
        }
        let checked = load(path, &noting);
        *self.lock() = Some(noting.seen.into_inner());
        checked
    }

    /// What the last reading opened, good or bad, as it was then; nothing before the first one.
    pub fn seen(&self) -> Sights {
        self.lock().clone().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sights>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at each file before it is opened.
struct Noting<'a> {
    surroundings: &'a dyn Surroundings,
    seen: RefCell<Sights>,
}

impl Noting<'_> {
    fn note(&self, path: &Path) {
        self.seen.borrow_mut().add(path);
    }
}

impl Surroundings for Noting<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.surroundings.variable(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.note(path);
        self.surroundings.read(path)
    }

    fn can_read(&self, path: &Path) -> io::Result<()> {
        self.note(path);
        self.surroundings.can_read(path)
    }

    fn host_name(&self) -> Option<String> {
        self.surroundings.host_name()
    }

    fn has_files(&self) -> bool {
        self.surroundings.has_files()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const EDGE: &str = "initiator: { node: a, cluster: b, token: 'file:token', tls: { ca: ca.pem, pins: [] }, \
                        tunnels: [ { to: 'h:1' } ] }\nservices: []\n";

    #[test]
    fn each_file_that_a_reading_opens_is_seen_also_one_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("adit.yaml"), EDGE).unwrap();
        fs::write(at("token"), "a token\n").unwrap();
        let source = Source::file(at("adit.yaml"));
        assert_eq!(source.seen(), Sights::default());
        let report = source.load().unwrap_err().to_string();
        assert!(report.contains("cannot read"), "{report}");
        let seen = source.seen();
        let mut paths: Vec<_> = seen.paths().collect();
        paths.sort();
        assert_eq!(paths, [at("adit.yaml"), at("ca.pem"), at("token")]);
        assert_eq!(seen.again(), seen);
        for (name, text) in [("ca.pem", "x"), ("token", "another"), ("adit.yaml", "x: y\n")] {
            let before = seen.again();
            fs::write(at(name), text).unwrap();
            assert_ne!(before.again(), before, "{name}");
        }
        assert!(source.load().is_err());
        assert_eq!(source.clone().seen().paths().collect::<Vec<_>>(), [at("adit.yaml")], "nothing else could be read");
    }

    #[test]
    fn a_pipe_is_read_once_and_is_an_error_then() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        io::Write::write_all(&mut writer, b"nothing: here\n").unwrap();
        drop(writer);
        let source = Source::file(path);
        assert!(source.load().unwrap_err().to_string().contains("is unknown"));
        assert_eq!(source.seen(), Sights::default(), "nobody can see whether it changed");
        assert!(source.load().unwrap_err().to_string().contains("is a pipe, which can be read once"));
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_is_called_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adit.yaml");
        fs::write(&path, "nothing: here\n").unwrap();
        let source = Source::file(&path);
        source.load().unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let report = source.load().unwrap_err().to_string();
        assert!(report.contains("Is a directory"), "{report}");
    }
}
