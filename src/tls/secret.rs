//! Keys that must outlive the process: created once, mode 0600, the same bytes at every start.
//!
//! The responder keeps two: QUIC's stateless reset key and the key of its connection ids. With new ones at each start a
//! restarted responder is noticed after the idle timeout instead of one round trip.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Why a persisted file cannot be used or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be made.
    #[error("cannot create {path}; its folder must exist and be writable")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is there already and is not overwritten.
    #[error("{path} exists and is not overwritten; move it away first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Something is there that is not a file.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner may use the file.
    #[error(
        "{path} may be used by others than its owner (mode {mode:04o}); expected 0600: `chmod 600` it if its \
             secret is still one, else delete it to get a new one at the next start"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not the key it should be.
    #[error("{path} has {actual} bytes; expected exactly {expected}: delete it to get a new one at the next start")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        actual: u64,
        /// The size that would be accepted, in bytes.
        expected: usize,
    },
    /// The operating system gave no randomness.
    #[error("no randomness for a new key")]
    Random,
}

/// Reads `len` secret bytes from `path`, or makes them if there is no such file.
///
/// Several processes may do this at once: all get the bytes of the one that came first. A crash leaves either no file
/// or a whole one.
///
/// # Errors
/// [`SecretError`]; in particular, a file with another length or one that group or others may use is refused, never
/// repaired: its secret may be known.
pub fn load_or_create(path: &Path, len: usize) -> Result<Secret, SecretError> {
    if let Some(secret) = load(path, len)? {
        return Ok(secret);
    }
    match create_new(path, random(len)?.as_bytes(), 0o600) {
        Ok(()) | Err(SecretError::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    load(path, len)?.ok_or_else(|| SecretError::Read { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
}

/// `len` bytes nobody can guess, kept nowhere: for a responder without a state folder.
///
/// # Errors
/// [`SecretError::Random`].
pub fn random(len: usize) -> Result<Secret, SecretError> {
    let mut bytes = vec![0; len].into_boxed_slice();
    rand::fill(&mut bytes).map_err(|_| SecretError::Random)?;
    Ok(Secret(bytes))
}

fn load(path: &Path, len: usize) -> Result<Option<Secret>, SecretError> {
    let read_error = |source| SecretError::Read { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read_error(error)),
    };
    // Asked of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode });
    }
    if metadata.len() != len as u64 {
        return Err(SecretError::Length { path: path.to_owned(), actual: metadata.len(), expected: len });
    }
    let mut bytes = vec![0; len].into_boxed_slice();
    file.read_exact(&mut bytes).map_err(read_error)?;
    Ok(Some(Secret(bytes)))
}

/// Makes a file that was not there, whole or not at all.
pub(super) fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SecretError> {
    let create_error = |source| SecretError::Create { path: path.to_owned(), source };
    let draft = draft_path(path)?;
    let written = write_draft(&draft, bytes, mode)
        // A link, unlike a rename, fails if the name is taken.
        .and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match written {
        Ok(()) => removed.and_then(|()| sync_folder(path)).map_err(create_error),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(SecretError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(create_error(error)),
    }
}

/// Writes files whole, in place of those that have their names, if there are any: each is written under another name first, so
/// that whatever fails before all of them are, leaves the old ones as they are.
pub(super) fn replace(files: &[(&Path, &[u8], u32)]) -> Result<(), SecretError> {
    let mut drafts = Vec::with_capacity(files.len());
    let replaced = files.iter().try_for_each(|(path, bytes, mode)| {
        let create_error = |source| SecretError::Create { path: (*path).to_owned(), source };
        let draft = draft_path(path)?;
        drafts.push(draft.clone());
        write_draft(&draft, bytes, *mode).map_err(create_error)
    });
    let renamed = replaced.and_then(|()| {
        drafts.iter().zip(files).try_for_each(|(draft, (path, ..))| {
            let renamed = fs::rename(draft, path).and_then(|()| sync_folder(path));
            renamed.map_err(|source| SecretError::Create { path: (*path).to_owned(), source })
        })
    });
    if renamed.is_err() {
        for draft in &drafts {
            // One that was renamed, or never written, is not there.
            let _ = fs::remove_file(draft);
        }
    }
    renamed
}

/// A name beside `path` that no other process and no other thread uses.
fn draft_path(path: &Path) -> Result<PathBuf, SecretError> {
    let noise = random(8)?;
    let suffix: String = noise.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{suffix}.tmp")))
}

fn write_draft(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the new name survive a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_second_start_gets_the_bytes_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        let first = load_or_create(&path, 64).unwrap();
        assert_eq!(load_or_create(&path, 64).unwrap(), first);
        assert_ne!(first.as_bytes(), [0; 64]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn processes_that_start_together_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        let secrets: Vec<Secret> = thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| load_or_create(&path, 32).unwrap())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    }

    #[test]
    fn a_key_others_may_read_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        load_or_create(&path, 32).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(&path, 32).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("expected 0600"), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reset.key");
        load_or_create(&path, 32).unwrap();
        let error = load_or_create(&path, 64).unwrap_err().to_string();
        assert!(error.contains("has 32 bytes; expected exactly 64"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = load_or_create(Path::new("/nonexistent/adit/reset.key"), 32).unwrap_err();
        assert!(matches!(error, SecretError::Create { .. }), "{error}");
        assert!(error.to_string().contains("/nonexistent/adit/reset.key"));
    }

    #[test]
    fn what_exists_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        create_new(&path, b"first", 0o644).unwrap();
        assert!(matches!(create_new(&path, b"second", 0o644), Err(SecretError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret(Box::new([1, 2, 3]))), "Secret(3 bytes)");
    }
}
