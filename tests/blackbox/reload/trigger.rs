//! Who asks for a reload: what comes of a change does not depend on it.

use http::Method;

use super::world::{OUTCOMES, Outcome, counted};
use crate::cli::{adit, parts};
use crate::support::eventually::eventually;
use crate::support::site::{Cloud, Edge, Running, Transport};

/// What makes a process read its file again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// SIGHUP.
    Signal,
    /// `POST /reload` at the admin listener.
    Post,
    /// `adit reload`.
    Command,
    /// Nobody: the process watches its files.
    Watch,
}

/// Makes a test of each of these functions for each [`Trigger`]: a signal over both transports, the others over one, since
/// they end in the same reload.
macro_rules! by_each_trigger {
    ($($test:ident),* $(,)?) => {
        by_each_trigger! { @ by_signal_over_quic: Quic, Signal; $($test),* }
        by_each_trigger! { @ by_signal_over_tcp: Tcp, Signal; $($test),* }
        by_each_trigger! { @ by_post: Quic, Post; $($test),* }
        by_each_trigger! { @ by_command: Tcp, Command; $($test),* }
        by_each_trigger! { @ by_watch: Quic, Watch; $($test),* }
    };
    (@ $room:ident: $transport:ident, $trigger:ident; $($test:ident),*) => {
        mod $room {
            use crate::reload::trigger::Trigger;
            use crate::support::site::Transport;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(Transport::$transport, Trigger::$trigger).await;
            })*
        }
    };
}
pub(super) use by_each_trigger;

impl Trigger {
    /// The file of a responder to which this can happen.
    pub(super) fn cloud(self) -> Cloud {
        self.watching(Cloud::new(), Cloud::process)
    }

    /// The same of an initiator.
    pub(super) fn edge(self, transport: Transport) -> Edge {
        self.watching(Edge::new(transport), Edge::process)
    }

    fn watching<T>(self, file: T, set: impl FnOnce(T, &str, &str) -> T) -> T {
        if self == Self::Watch { set(file, "reload", "{ watch: true }") } else { file }
    }

    /// Writes another text in its file, and waits for what comes of it.
    pub(super) async fn rewrite(self, running: &Running, text: &str) -> Outcome {
        self.change(running, || std::fs::write(running.file(), text).unwrap()).await
    }

    /// The same after another change of its files.
    pub(super) async fn change<T>(self, running: &Running, write: impl FnOnce() -> T) -> Outcome {
        let (before, lines) = (counted(running).await, OUTCOMES.map(|(_, message)| running.lines_of(message).len()));
        let _ = write();
        let told = self.pull(running).await;
        let kind = eventually("what came of a reload", async || {
            let now = counted(running).await;
            (0..OUTCOMES.len()).find(|kind| now[*kind] > before[*kind])
        })
        .await;
        let line = eventually("the line about a reload", async || {
            running.lines_of(OUTCOMES[kind].1).get(lines[kind]).cloned()
        })
        .await;
        let outcome = match kind {
            0 => Outcome::Applied(line["changes"].as_str().unwrap().split("; ").map(str::to_owned).collect()),
            1 => Outcome::Unchanged,
            _ => Outcome::Failed(line["error"].as_str().unwrap().to_owned()),
        };
        if let (Some(told), Outcome::Applied(changes)) = (told, &outcome) {
            assert_eq!(told.lines().collect::<Vec<_>>(), *changes, "whoever asked is told what the log says");
        }
        outcome
    }

    /// Asks for a reload; the answer, where there is one.
    async fn pull(self, running: &Running) -> Option<String> {
        match self {
            Self::Signal => running.signal("HUP"),
            Self::Post => return Some(running.ask(Method::POST, "/reload").await.1),
            Self::Command => {
                return Some(parts(&adit(&["reload", "--admin", &running.admin().to_string()]).await).1);
            }
            Self::Watch => {}
        }
        None
    }
}

/// Asks it by a signal to read its file again, and waits for what comes of it.
pub(super) async fn reload(running: &Running) -> Outcome {
    Trigger::Signal.change(running, || ()).await
}

/// The same with another text in its file.
pub(crate) async fn rewrite(running: &Running, text: &str) -> Outcome {
    Trigger::Signal.rewrite(running, text).await
}
