//! Many exchanges at once on one tunnel. All are under way before the first one is cancelled, and all that are to be
//! cancelled have been before the first one is answered.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::content::Content;
use crate::origin::{Crowd, Origin};
use crate::support::http1::RawHttp;

/// A cancellation should arrive at once; the rest of this is patience with a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Body bytes of the smallest exchange; each of the others has one more than the one before it.
const SMALLEST: usize = 16 * 1024;

/// How an exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With the whole response.
    Answered,
    /// The client goes away in the middle of its own body,
    CutUpload,
    /// or while it waits for the response,
    CutWaiting,
    /// or in the middle of the response body.
    CutDownload,
}

impl FromStr for Fate {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let all = [Self::CutUpload, Self::CutWaiting, Self::CutDownload];
        Ok(all.into_iter().find(|fate| text == format!("{fate:?}")).unwrap_or(Self::Answered))
    }
}

/// How many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) exchanges: u64,
    pub(crate) cancelled: u64,
}

impl Numbers {
    /// The cancelled ones are spread over the whole, and take turns at the ways to be cancelled.
    fn fate(self, id: u64) -> Fate {
        let before = |id: u64| id * self.cancelled / self.exchanges;
        match before(id + 1) - before(id) {
            0 => Fate::Answered,
            _ => [Fate::CutUpload, Fate::CutWaiting, Fate::CutDownload][(before(id) % 3) as usize],
        }
    }
}

/// What became of the crowd.
pub(crate) struct Outcome {
    /// Under way at the same time, as the target saw it.
    pub(crate) at_once: usize,
    /// Answers equal to what was sent.
    pub(crate) equal: u64,
    /// Whether the target saw exactly those cancelled that were.
    pub(crate) cancelled_as_asked: bool,
    pub(crate) cancellations_seen: usize,
    /// From the moment when the clients went away until the target had seen it of all.
    pub(crate) cancelling: Duration,
    /// From the first byte sent to the last answer.
    pub(crate) taken: Duration,
}

/// Sends them all through `egress`.
pub(crate) async fn run(egress: SocketAddr, fields: &str, origin: &Origin, numbers: Numbers) -> Outcome {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    let mut to_be_cancelled = BTreeSet::new();
    for id in 0..numbers.exchanges {
        let fate = numbers.fate(id);
        if fate != Fate::Answered {
            to_be_cancelled.insert(id);
        }
        let head = format!(
            "POST /crowd/{fate:?}/{id} HTTP/1.1\r\nhost: target.example\r\n{fields}content-length: {}\r\n\r\n",
            length(id)
        );
        clients.spawn(exchange(egress, head, Member { id, fate, all: numbers.exchanges }, origin.crowd()));
    }
    let mut crowd = origin.crowd();
    let at_once =
        waited(&mut crowd, |crowd| crowd.begun.len() as u64 == numbers.exchanges, |crowd| crowd.begun.len()).await;
    let gone = Instant::now();
    let all_seen = |crowd: &Crowd| crowd.cancelled.len() >= to_be_cancelled.len();
    let seen = waited(&mut crowd, all_seen, |crowd| crowd.cancelled.clone()).await;
    let cancelling = gone.elapsed();
    origin.open_gate();
    let mut equal = 0;
    while let Some(answer) = clients.join_next().await {
        match answer.unwrap() {
            Ok(answered) => equal += u64::from(answered),
            Err(error) => eprintln!("an exchange failed: {error}"),
        }
    }
    Outcome {
        at_once,
        equal,
        cancelled_as_asked: seen == to_be_cancelled,
        cancellations_seen: seen.len(),
        cancelling,
        taken: start.elapsed(),
    }
}

/// Waits for the crowd to be as told, but not forever, and takes a look at it.
async fn waited<T>(
    crowd: &mut watch::Receiver<Crowd>,
    condition: impl Fn(&Crowd) -> bool,
    look: impl Fn(&Crowd) -> T,
) -> T {
    let _ = tokio::time::timeout(PATIENCE, async { crowd.wait_for(condition).await.map(drop) }).await;
    look(&crowd.borrow())
}

#[derive(Debug, Clone, Copy)]
struct Member {
    id: u64,
    fate: Fate,
    /// How many there are in all.
    all: u64,
}

/// Whether there was an answer, and it was what was sent.
async fn exchange(
    egress: SocketAddr,
    head: String,
    member: Member,
    mut crowd: watch::Receiver<Crowd>,
) -> io::Result<bool> {
    let content = Content { seed: member.id }.bytes(length(member.id));
    let half = content.len() / 2;
    let mut client: RawHttp<TcpStream> = RawHttp::connect(egress).await?;
    client.send(head.as_bytes()).await?;
    match member.fate {
        Fate::Answered => {
            client.send(&content).await?;
            let response = client.response().await?;
            return Ok(response.status() == 200 && response.body == content);
        }
        Fate::CutUpload => client.send(&content[..half]).await?,
        Fate::CutWaiting => client.send(&content).await?,
        Fate::CutDownload => {
            client.send(&content).await?;
            let head = client.head().await?;
            if head.status != 200 || client.exactly(half).await? != content[..half] {
                return Err(io::Error::other(format!("the first half of {} is wrong: {head:?}", member.id)));
            }
        }
    }
    let all_begun = |crowd: &Crowd| crowd.begun.len() as u64 == member.all;
    let _ = tokio::time::timeout(PATIENCE, crowd.wait_for(all_begun)).await;
    Ok(false)
}

fn length(id: u64) -> usize {
    SMALLEST + id as usize
}
