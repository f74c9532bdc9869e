//! The machine with a clock moved by hand, and the loop over real files with tokio's paused clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Looks at these times, in milliseconds, seeing these contents where `old` was read: when it was due.
fn due(looks: &[(u32, &'static str)]) -> Vec<u32> {
    let (start, mut settling) = (Instant::now(), Settling::default());
    let mut read = "old";
    let mut due = Vec::new();
    for (at, found) in looks {
        if settling.is_due(start + MS * *at, &read, found) {
            due.push(*at);
            read = found;
        }
    }
    due
}

#[test]
fn what_stays_as_it_was_read_is_never_due() {
    assert_eq!(due(&[(0, "old"), (500, "old"), (1000, "old")]), [0; 0]);
}

#[test]
fn a_change_is_due_once_when_two_looks_agree() {
    assert_eq!(due(&[(0, "old"), (500, "new"), (800, "new"), (1300, "new"), (1800, "new")]), [800]);
}

#[test]
fn looks_that_are_too_close_do_not_count_as_two() {
    assert_eq!(due(&[(500, "new"), (501, "new"), (799, "new"), (800, "new")]), [800]);
}

/// An editor that truncates, writes a half, and then the rest.
#[test]
fn a_file_that_is_being_written_is_due_when_that_is_over() {
    assert_eq!(due(&[(0, ""), (300, "ne"), (600, "new"), (900, "new"), (1400, "new")]), [900]);
}

#[test]
fn a_change_that_is_taken_back_is_none() {
    assert_eq!(due(&[(0, "new"), (300, "old"), (800, "old"), (1300, "new"), (1600, "new")]), [1600]);
}

#[test]
fn who_goes_back_to_what_was_acted_on_before_makes_another_change() {
    let (start, mut settling) = (Instant::now(), Settling::default());
    let mut due = |at: u32, read: &'static str, found| settling.is_due(start + MS * at, &read, found);
    assert!(!due(0, "first", "second") && due(1000, "first", "second"));
    // Somebody else had the third read before it was seen here.
    assert!(!due(2000, "third", "third"));
    assert!(!due(3000, "third", "second") && due(4000, "third", "second"));
}

#[test]
fn what_could_not_be_read_is_not_due_again_until_it_changes() {
    let (start, mut settling) = (Instant::now(), Settling::default());
    let mut due = |at: u32, found: &'static str| settling.is_due(start + MS * at, &"old", found);
    let looks = [(0, "bad"), (300, "bad"), (600, "bad"), (1100, "bad"), (1600, "good"), (1900, "good"), (2200, "good")];
    assert_eq!(looks.map(|(at, found)| due(at, found)), [false, true, false, false, false, true, false]);
    assert_eq!([(2700, "bad"), (3000, "bad")].map(|(at, found)| due(at, found)), [false, true]);
}

/// A source in a folder, watched; what each reload read.
struct Watched {
    folder: tempfile::TempDir,
    reloads: Arc<AtomicUsize>,
    levels: Arc<Mutex<Vec<String>>>,
    wanted: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

const FILE: &str = "adit.yaml";

fn text(level: &str) -> String {
    format!(
        "initiator: {{ tunnels: ['rc://a:b:c@h:1'], token: 'file:token', \
         tls: {{ pins: 'sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' }} }}\nservices: []\nlog: {{ level: {level} }}\n"
    )
}

impl Watched {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "first").unwrap();
        prepare(folder.path());
        let source = Source::file(folder.path().join(FILE));
        source.load().unwrap();
        let (reloads, levels) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (wanted, watched) = watch::channel(true);
        let (counted, read, again) = (Arc::clone(&reloads), Arc::clone(&levels), source.clone());
        let task = tokio::spawn(watch(source, watched, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let loaded = again.load();
            let level =
                loaded.map_or_else(|report| report.to_string(), |checked| checked.log.level.as_str().to_owned());
            read.lock().unwrap().push(level);
            std::future::ready(())
        }));
        Self { folder, reloads, levels, wanted, task }
    }

    fn plain() -> Self {
        Self::new(|folder| fs::write(folder.join(FILE), text("info")).unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What was read since the last call, after so long that nothing more can come.
    async fn read(&self) -> Vec<String> {
        sleep(10 * LOOK_INTERVAL).await;
        std::mem::take(&mut self.levels.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_nothing_changes() {
    let watched = Watched::plain();
    fs::write(watched.at(FILE), text("info")).unwrap();
    assert_eq!(watched.read().await, [""; 0]);
    assert_eq!(watched.reloads.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_truncates_causes_one_reload_of_the_whole() {
    let watched = Watched::plain();
    let new = text("debug");
    for half in [0, 20, new.len()] {
        fs::write(watched.at(FILE), &new[..half]).unwrap();
        sleep(SETTLED_AFTER / 2).await;
    }
    assert_eq!(watched.read().await, ["debug"]);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_renames_causes_one_reload() {
    let watched = Watched::plain();
    for level in ["debug", "warn"] {
        fs::write(watched.at("new"), text(level)).unwrap();
        fs::rename(watched.at("new"), watched.at(FILE)).unwrap();
        assert_eq!(watched.read().await, [level]);
    }
}

/// What Kubernetes does with a mounted volume: the files are links through `..data`, which is made to point elsewhere.
#[tokio::test(start_paused = true)]
async fn a_swapped_link_causes_one_reload_of_all_files() {
    let publish = |folder: &Path, version: &str, level: &str| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join(FILE), text(level)).unwrap();
        fs::write(folder.join(version).join("token"), version).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let watched = Watched::new(|folder| {
        publish(folder, "v1", "info");
        fs::remove_file(folder.join("token")).unwrap();
        for name in [FILE, "token"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
    });
    publish(watched.folder.path(), "v2", "debug");
    fs::remove_dir_all(watched.at("v1")).unwrap();
    assert_eq!(watched.read().await, ["debug"]);
    publish(watched.folder.path(), "v3", "warn");
    assert_eq!(watched.read().await, ["warn"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_named_in_the_file_is_watched_too() {
    let watched = Watched::plain();
    fs::write(watched.at("token"), "second").unwrap();
    assert_eq!(watched.read().await, ["info"]);
    fs::remove_file(watched.at("token")).unwrap();
    let read = watched.read().await;
    assert!(read.len() == 1 && read[0].contains("token: cannot read"), "{read:?}");
    fs::write(watched.at("token"), "third").unwrap();
    assert_eq!(watched.read().await, ["info"], "it is there again");
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_is_read_once_and_what_mends_it_too() {
    let watched = Watched::plain();
    fs::write(watched.at(FILE), "initiator: {").unwrap();
    let read = watched.read().await;
    assert!(read.len() == 1 && read[0].contains("cannot be read as YAML"), "{read:?}");
    assert_eq!(watched.read().await, [""; 0]);
    fs::write(watched.at(FILE), text("info")).unwrap();
    assert_eq!(watched.read().await, ["info"]);
}

#[tokio::test(start_paused = true)]
async fn it_watches_while_that_is_wanted() {
    let watched = Watched::plain();
    watched.wanted.send(false).unwrap();
    fs::write(watched.at(FILE), text("debug")).unwrap();
    assert_eq!(watched.read().await, [""; 0]);
    watched.wanted.send(true).unwrap();
    assert_eq!(watched.read().await, ["debug"], "what changed meanwhile is news");
    drop(watched.wanted);
    watched.task.await.unwrap();
}
