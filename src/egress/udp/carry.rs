//! One flow of a UDP listener: opened, carried to its end, recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep;

use super::judge::Judged;
use super::queue::QueueRecv;
use super::shared::{DRAIN_SILENCE, Shared};
use super::table::Key;
use crate::egress::find::FindTunnel;
use crate::egress::lock;
use crate::message::failure::{Cause, Failure};
use crate::protocol::limits::MAX_DURATION;
use crate::protocol::stream::ClientAddresses;
use crate::proxy::datagrams::{LocalError, Sink, Source};
use crate::proxy::flow::{self, head};
use crate::proxy::opener::Find;
use crate::routing::Destination;
use crate::transport::{Phase, Tunnel};

/// How long a source is not heard whose flow could not be opened.
const BAR: Duration = Duration::from_secs(1);

/// Why a flow leaves a tunnel that may still be there: the next datagram of its source opens another one there.
const OVERTAKEN: &str = "the tunnel is not heard any more, and there is another one";
/// The same of one that is about to end.
const DRAINED: &str = "the tunnel drains, and there is another one";
/// The same where there is none, and only flows are left in it.
const LEFT: &str = "the tunnel drains, and nothing but flows runs in it";
/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(100);
/// How long what waits of a flow that is over may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Carries one flow.
pub(super) struct Carrier {
    shared: Arc<Shared>,
    key: Key,
    /// Of the source, when the flow could not be opened.
    bars: bool,
}

impl Carrier {
    pub(super) fn new(shared: Arc<Shared>, key: Key) -> Self {
        Self { shared, key, bars: false }
    }

    /// Opens the flow, and passes datagrams until it is over.
    ///
    /// Cancel safety: dropping the future ends the flow.
    pub(super) async fn carry(mut self, queue: QueueRecv) {
        let now = self.shared.current.in_force.load_full();
        let terms = &now.terms;
        let recorder = &self.shared.recorder;
        let mut record = recorder.begin_with(terms.access_log, &head(&terms.service), Some(self.key.ends.source));
        let Judged { decision, to, allowed } = terms.judge(self.key.ends.source);
        if let Some(decision) = decision {
            now.counters.note(&decision, recorder, &mut record);
        }
        record.asked(&to.tenant, &to.host_id, to.service.as_ref());
        let (gone, mut find) = (queue.gone(), FindTunnel::new(&self.shared.directory, &to, terms.hold));
        let opening = async {
            allowed?;
            let service = to.service.as_ref().unwrap_or(&terms.service);
            let client = self.client();
            flow::open(&mut find, (service, client), &mut record).await
        };
        // One that gave way meanwhile is not opened any more.
        let Some(opened) = gone.run_until_cancelled(opening).await else { return };
        match opened {
            Ok((flow, tunnel)) => {
                // The table knows when it has been silent for too long. spec: ST-76
                let flow = flow.idle_after(MAX_DURATION);
                let ends = (FromSource(queue), ToSource { shared: Arc::clone(&self.shared), key: self.key });
                let _untold = tunnel.begin_untold();
                let elsewhere = async {
                    let why = tokio::select! {
                        () = find.overtaken(&tunnel, &[]) => OVERTAKEN,
                        why = self.relieved(&tunnel, &to, terms.hold) => why,
                    };
                    Failure::new(Cause::TunnelLost, why)
                };
                let passed = flow::pass(flow, ends, record, self.shared.recorder.flows(), elsewhere);
                let given_up = async {
                    gone.cancelled().await;
                    sleep(LAST_WORDS).await;
                };
                tokio::select! {
                    () = passed => {}
                    () = given_up => {}
                }
            }
            Err(failure) => {
                tracing::debug!(source = %self.key.ends.source, %failure, "a flow was not opened");
                record.fail(&failure);
                record.responded(failure.cause().status());
                self.bars = true;
            }
        }
    }

    /// Who speaks, and to which address.
    fn client(&self) -> ClientAddresses {
        let Shared { address, .. } = &*self.shared;
        let here = self.key.ends.here.map_or(*address, |here| (here, address.port()).into());
        ClientAddresses::new(self.key.ends.source, here)
    }

    /// Resolves when the tunnel drains and there is another one, or nothing runs in it any more that has an end of its own, with
    /// what is said of it: a flow has none that a drain could wait for, and nobody who could be told. Where this listener drains,
    /// too, it is for that to say how long its flows go on.
    async fn relieved(&self, tunnel: &Tunnel, to: &Destination, hold: Duration) -> &'static str {
        let mut phase = tunnel.phase();
        // An error says that it is closed, as the flow hears by itself.
        if phase.wait_for(|phase| matches!(phase, Phase::Draining { .. })).await.is_err() {
            std::future::pending::<()>().await;
        }
        let since = Instant::now();
        let mut find = FindTunnel::new(&self.shared.directory, to, hold);
        if find.find(&[tunnel.id()]).await.is_ok() {
            return DRAINED;
        }
        while since.elapsed() < DRAIN_SILENCE || !tunnel.has_only_untold() || lock(&self.shared.table).is_closed() {
            sleep(LOOK).await;
        }
        LEFT
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let mut table = lock(&self.shared.table);
        if self.bars {
            table.bar(self.key, Instant::now() + BAR);
        } else {
            table.end(self.key);
        }
    }
}

/// What a source sends.
struct FromSource(QueueRecv);

/// What it is sent.
struct ToSource {
    shared: Arc<Shared>,
    key: Key,
}

impl Source for FromSource {
    async fn next(&mut self) -> Result<Option<Bytes>, LocalError> {
        Ok(self.0.next().await)
    }
}

impl Sink for ToSource {
    async fn put(&mut self, datagram: Bytes) -> Result<bool, LocalError> {
        lock(&self.shared.table).answered(self.key, Instant::now());
        // One that does not go out is lost, as UDP may be.
        Ok(self.shared.socket.answer(&datagram, self.key.ends).await.is_ok())
    }
}
