//! What a file may refer to outside itself: environment variables and other files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The largest file that a `file:` reference may name, in bytes.
pub const MAX_REFERENCED_BYTES: u64 = 64 << 10;
/// More is no name of a host.
const MAX_HOST_NAME_BYTES: u64 = 256;

/// Where references are looked up. The process itself for real use, [`Nowhere`] for tests and fuzzing.
pub trait Surroundings {
    /// The value of an environment variable, if it is set and is Unicode.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a small file; longer than [`MAX_REFERENCED_BYTES`] is an error, as is anything but a plain file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether the file is there and may be read.
    fn can_read(&self, path: &Path) -> io::Result<()>;

    /// What this machine calls itself, if that is known.
    fn host_name(&self) -> Option<String> {
        None
    }

    /// Whether files can be opened at all, so that their content is worth checking.
    fn has_files(&self) -> bool;
}

/// The environment and the file system of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_bounded(path, MAX_REFERENCED_BYTES)
    }

    fn can_read(&self, path: &Path) -> io::Result<()> {
        open_plain(path).map(drop)
    }

    fn host_name(&self) -> Option<String> {
        let name = read_bounded(Path::new("/proc/sys/kernel/hostname"), MAX_HOST_NAME_BYTES).ok();
        let name = name.or_else(|| read_bounded(Path::new("/etc/hostname"), MAX_HOST_NAME_BYTES).ok())?;
        String::from_utf8(name.trim_ascii().to_vec()).ok().filter(|name| !name.is_empty())
    }

    fn has_files(&self) -> bool {
        true
    }
}

/// The file system of this process, and these variables instead of its environment: for programs that embed adit.
#[derive(Debug, Clone)]
pub struct Given<'a>(pub &'a [(&'a str, String)]);

impl Surroundings for Given<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Process.read(path)
    }

    fn can_read(&self, path: &Path) -> io::Result<()> {
        Process.can_read(path)
    }

    fn has_files(&self) -> bool {
        true
    }
}

/// No variable is set, and every file is there and empty: a text can be checked without touching the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn can_read(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn has_files(&self) -> bool {
        false
    }
}

/// From where the relative paths of a configuration count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The folder; empty for the working directory.
    pub(super) base: PathBuf,
    /// What the file is a link to: people expect paths to count from there.
    linked: Option<PathBuf>,
}

impl Place {
    /// The folder in which a file stands.
    pub(super) fn of(path: &Path) -> Self {
        Self { base: path.parent().unwrap_or_else(|| Path::new("")).to_owned(), linked: None }
    }

    /// The same for a file that is to be read. What comes out of a pipe, or is redirected by a shell, stands in no folder.
    pub(super) fn given(path: &Path) -> Self {
        match can_be_read_again(path) {
            true => Self { linked: path.read_link().ok(), ..Self::of(path) },
            false => Self::default(),
        }
    }

    /// What to say beside a file that is missing; may be empty.
    pub(super) fn note(&self) -> String {
        let to = |linked: &PathBuf| {
            format!(" (relative paths count from the folder of the link, not from that of {})", linked.display())
        };
        self.linked.as_ref().map(to).unwrap_or_default()
    }
}

/// Whether a file stands there, or could; a pipe, and what a shell redirects, is gone once it was read.
pub(super) fn can_be_read_again(path: &Path) -> bool {
    let is_descriptor = path.starts_with("/dev") || path.starts_with("/proc");
    path.metadata().map_or(true, |found| found.is_dir() || (found.is_file() && !is_descriptor))
}

/// Reads a file or a pipe, at most `limit` bytes of it; longer is an error. Waits for whoever writes to the pipe.
pub(super) fn read_given(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(File::open(path)?, limit)
}

/// Opens plain files only: a pipe or a device would block or never end.
fn open_plain(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    File::open(path)
}

/// Reads at most `limit` bytes; a longer file is an error.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(open_plain(path)?, limit)
}

fn bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(content)
}
