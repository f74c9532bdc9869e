//! A raw stream that a sibling asks for. spec: FL-46, ST-50 to ST-63

use http::{Method, StatusCode};
use tracing::debug;

use crate::fleet::hop::find::FindHere;
use crate::fleet::hop::served::{Served, Told, told};
use crate::message::failure::Failure;
use crate::protocol::code::{OpenCause, StreamCode};
use crate::protocol::fleet::Route;
use crate::protocol::limits::MAX_DURATION;
use crate::protocol::stream::StreamError;
use crate::proxy::connect::send_bytes;
use crate::proxy::flow::head_of;
use crate::proxy::{Charged, ExchangeBody, MAX_ATTEMPTS, Record, failure_of, is_unprocessed};
use crate::shares::What;
use crate::transport::{BodyError, OpenError, RawArrival, RawStream, RecvBody};

/// Why there is no stream.
pub(super) struct NotOpened {
    error: OpenError,
    has_found: bool,
}

/// Passes bytes both ways until both directions have ended, or one was cut.
pub(super) async fn relay(served: &Served, route: &Route, mut arrival: RawArrival) {
    let (service, client) = (arrival.service.clone(), arrival.client);
    let mut record = served.recorder.begin(&head_of(Method::CONNECT, &service), None);
    record.asked(&route.tenant, &route.host_id, Some(&service));
    let opening = async {
        let mut find = FindHere::new(&*served.tunnels, route, Some(&service));
        enter(served, &mut record, (route, What::Stream))?;
        let (mut avoid, mut last) = (Vec::new(), OpenError::NotHere);
        while avoid.len() < MAX_ATTEMPTS
            && let Ok(tunnel) = find.pick(&avoid)
        {
            avoid.push(tunnel.id());
            record.attempt(&tunnel);
            // The asker has left that to whoever has the tunnel.
            if record.go_to(served.tunnels.shares().node(&tunnel.place().claim)).is_err() {
                last = OpenError::SiblingQuota;
                continue;
            }
            // The sibling that asks gives it up in its own time.
            match tunnel.open_raw_within(MAX_DURATION, &service, client).await {
                Ok(stream) => return Ok(stream),
                // Nothing of it has reached a target.
                Err(error) if is_unprocessed(&error) || matches!(error, OpenError::TunnelLost(_)) => last = error,
                Err(error) => return Err(NotOpened { error, has_found: true }),
            }
        }
        Err(NotOpened { error: last, has_found: find.has_found() })
    };
    match arrival.connecting(opening).await {
        None => debug!("nobody waits for the stream any more"),
        Some(Ok(stream)) => pass(arrival, stream, record).await,
        Some(Err(not_opened)) => match not_opened.told(&mut record) {
            // Whoever has gone needs no answer.
            Ok((cause, reason)) => drop(arrival.refuse(cause, &reason).await),
            Err(code) => arrival.reset(code),
        },
    }
}

/// Takes part of the tenant's share.
pub(super) fn enter(served: &Served, record: &mut Record, (route, what): (&Route, What)) -> Result<(), NotOpened> {
    let entered = record.enter(served.tunnels.shares().tenant(&route.tenant), what);
    entered.map_err(|_| NotOpened { error: OpenError::SiblingQuota, has_found: true })
}

impl NotOpened {
    pub(super) const fn new(error: OpenError, has_found: bool) -> Self {
        Self { error, has_found }
    }

    /// How the sibling is refused, or the code to reset with. As it would have met it on a tunnel of its own.
    /// spec: FL-44, FL-45
    pub(super) fn told(self, record: &mut Record) -> Result<(OpenCause, String), StreamCode> {
        let failure: Failure = failure_of(&self.error);
        record.fail(&failure);
        match self.error {
            OpenError::Refused(refused) => Ok((refused.cause, refused.reason)),
            OpenError::NoNamedServices => Ok((OpenCause::UnknownService, self.error.to_string())),
            OpenError::TimedOut => Ok((OpenCause::TargetTimedOut, self.error.to_string())),
            _ => Err(match told(&failure, self.has_found) {
                Told::Reset(code) => code,
                Told::Full => return Ok((OpenCause::Limit, failure.details().to_string())),
            }),
        }
    }
}

async fn pass(arrival: RawArrival, tunnel: RawStream, mut record: Record) {
    let sibling = match arrival.accept().await {
        Ok(sibling) => sibling,
        Err(error) => return debug!(%error, "nobody waits for the stream any more"),
    };
    record.responded(StatusCode::OK);
    let there = record.upload(RecvBody::raw(sibling.recv));
    if let Some(upload) = there.progress() {
        upload.counts_to_its_end();
    }
    let answer = Charged::new(RecvBody::raw(tunnel.recv), record.meter(), RecvBody::defer);
    let back = ExchangeBody::passed(answer, record);
    // The first that fails takes the other direction along. spec: ST-62
    let passed =
        tokio::try_join!(send_bytes(there, tunnel.send, None, is_cut), send_bytes(back, sibling.send, None, is_cut));
    if let Err(error) = passed {
        debug!(%error, "a raw stream of a sibling was cut");
    }
}

/// Whether the source of a direction has died behind what came: it is shown as a cut, and not as a reset. spec: ST-61
fn is_cut(error: &BodyError) -> bool {
    matches!(error, BodyError::Protocol(StreamError::Truncated) | BodyError::TunnelLost(_))
}
