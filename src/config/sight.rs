//! What files are like, to tell later whether they changed.
//!
//! A file is what is in it, wherever that comes from: it may be written anew, another may be moved into its place, or a link
//! on the way to it may lead elsewhere. So what counts is its content, and a change that is taken back is none.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Larger files are told apart by their inode, size and times alone, in bytes.
const MAX_READ_BYTES: u64 = 16 << 20;
/// A file that was written so short a time ago may be written again without another time to show for it.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// Equal contents have equal digests, in this process only.
static DIGESTS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What some files were like when they were looked at. Equal where the contents are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sights(BTreeMap<PathBuf, Sight>);

impl Sights {
    /// Looks at a file, beside those looked at before.
    pub(super) fn add(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), Sight::of(path, None));
        }
    }

    /// The same files as they are now. Waits for the disk; a file that shows no sign of a change is not read again.
    #[must_use]
    pub fn again(&self) -> Self {
        Self(self.0.iter().map(|(path, before)| (path.clone(), Sight::of(path, Some(before)))).collect())
    }

    /// Which files there are, or should be.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

/// What one file was like.
#[derive(Debug, Clone, Copy)]
struct Sight {
    content: Content,
    /// When it cannot have changed unseen; `None`: it must be read to know.
    stamp: Option<Stamp>,
}

/// Two sights of one content are the same, whatever happened between them.
impl PartialEq for Sight {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for Sight {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Absent,
    /// It is there and cannot be read, or is no plain file.
    Unreadable,
    /// The digest of what is in it.
    Read(u64),
    /// It is too large to be read.
    Large(Stamp),
}

/// What changes with the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Sight {
    fn of(path: &Path, before: Option<&Self>) -> Self {
        let now = SystemTime::now();
        let found = match path.metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::without_stamp(Content::Absent),
            Err(_) => return Self::without_stamp(Content::Unreadable),
        };
        if !found.is_file() {
            return Self::without_stamp(Content::Unreadable);
        }
        let stamp = Stamp::of(&found);
        if let Some(before) = before.filter(|before| before.stamp == Some(stamp)) {
            return *before;
        }
        let content = match stamp.bytes {
            0..=MAX_READ_BYTES => digest(path).map_or(Content::Unreadable, Content::Read),
            _ => Content::Large(stamp),
        };
        Self { content, stamp: Some(stamp).filter(|stamp| stamp.is_older_than_a_tick(now)) }
    }

    const fn without_stamp(content: Content) -> Self {
        Self { content, stamp: None }
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether the next change will have another time.
    fn is_older_than_a_tick(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds + 1));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= CLOCK_TICK))
    }
}

fn digest(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?.take(MAX_READ_BYTES + 1);
    let (mut hasher, mut buffer) = (DIGESTS.build_hasher(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.write(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn sights(paths: &[&Path]) -> Sights {
        let mut sights = Sights::default();
        paths.iter().for_each(|path| sights.add(path));
        sights
    }

    #[test]
    fn a_file_changes_with_its_content_however_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = at("a");
        let nothing = sights(&[&file]);
        assert_eq!(nothing.again(), nothing);
        fs::write(&file, "one").unwrap();
        let one = nothing.again();
        assert_ne!(one, nothing);
        // As long, and perhaps within the same tick of the file system's clock.
        fs::write(&file, "two").unwrap();
        let two = one.again();
        assert_ne!(two, one);
        fs::write(at("b"), "three").unwrap();
        fs::rename(at("b"), &file).unwrap();
        assert_ne!(two.again(), two);
        fs::write(&file, "two").unwrap();
        assert_eq!(two.again(), two, "it was taken back");
        fs::remove_file(&file).unwrap();
        assert_eq!(two.again(), nothing);
        fs::create_dir(&file).unwrap();
        assert_ne!(two.again(), nothing);
    }

    /// As Kubernetes changes what is mounted.
    #[test]
    fn a_link_that_leads_elsewhere_is_a_change_of_all_files_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two"), ("v3", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("f"), text).unwrap();
        }
        let point_to = |version: &str| {
            symlink(version, at("next")).unwrap();
            fs::rename(at("next"), at("..data")).unwrap();
        };
        point_to("v1");
        symlink("..data/f", at("f")).unwrap();
        let first = sights(&[&at("f")]);
        point_to("v2");
        let second = first.again();
        assert_ne!(second, first);
        point_to("v3");
        assert_eq!(second.again(), second, "the same in another folder");
    }

    #[test]
    fn a_file_that_shows_no_change_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "text").unwrap();
        let long_ago = SystemTime::now() + Duration::from_secs(60);
        let stamp = Stamp::of(&file.metadata().unwrap());
        assert!(stamp.is_older_than_a_tick(long_ago) && !stamp.is_older_than_a_tick(SystemTime::now()));
        let known = Sight { content: Content::Read(7), stamp: Some(stamp) };
        assert_eq!(Sight::of(&file, Some(&known)), known);
        assert_ne!(Sight::of(&file, Some(&Sight { stamp: None, ..known })), known);
    }
}
