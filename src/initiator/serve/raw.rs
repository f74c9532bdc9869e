//! A raw stream, taken to the target of its service. spec: ST-56 to ST-63

use std::sync::Arc;

use http::{Method, StatusCode};
use tracing::{Instrument, debug};

use super::exported::Exported;
use super::{Services, span};
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::OpenCause;
use crate::protocol::handshake::ServiceKind;
use crate::protocol::stream::ClientAddresses;
use crate::proxy::connect::send_bytes;
use crate::proxy::flow::head_of;
use crate::proxy::refused;
use crate::proxy::{ExchangeBody, Record};
use crate::targets::{Place, RawConnection};
use crate::transport::{RawArrival, RecvBody};

/// Passes bytes both ways until both directions have ended, or one of them was cut.
///
/// Cancel safety: dropping the future resets the stream, and the connection to the target.
pub(super) async fn serve(services: Services, mut arrival: RawArrival) {
    let span = span(&Method::CONNECT, Some(arrival.tunnel()));
    let mut record = services.0.recorder.begin(&head_of(Method::CONNECT, &arrival.service), None);
    record.through(arrival.tunnel());
    async {
        let client = arrival.client;
        let exported = services.taker((&arrival.service, ServiceKind::Tcp), (arrival.tunnel(), client), &mut record);
        // The list itself is not kept: it may not be the one in force when the stream ends.
        drop(services);
        let Some(connected) = arrival.connecting(connect(exported, client.as_ref(), &mut record)).await else {
            return debug!("nobody waits for the target any more");
        };
        match connected {
            Ok(connected) => pass(connected, arrival, record).await,
            Err((cause, failure)) => {
                record.fail(&failure);
                record.responded(failure.status());
                // Whoever has gone needs no answer.
                drop(arrival.refuse(cause, failure.details()).await);
            }
        }
    }
    .instrument(span)
    .await;
}

async fn connect(
    exported: Result<Arc<Exported>, (OpenCause, Failure)>,
    client: Option<&ClientAddresses>,
    record: &mut Record,
) -> Result<Connected, (OpenCause, Failure)> {
    let exported = exported?;
    let (connection, place) =
        exported.connect(client, record).await.map_err(|failure| (cause_of(&failure), failure))?;
    Ok(Connected { exported, connection, place })
}

/// A service, and a connection to its target.
struct Connected {
    exported: Arc<Exported>,
    connection: RawConnection,
    place: Place,
}

async fn pass(connected: Connected, arrival: RawArrival, mut record: Record) {
    let Connected { exported, connection, place } = connected;
    let stream = match arrival.accept().await {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "nobody waits for the target any more"),
    };
    record.responded(StatusCode::OK);
    let upload = record.upload(RecvBody::raw(stream.recv));
    if let Some(upload) = upload.progress() {
        upload.counts_to_its_end();
    }
    let body = match connection.pass(upload) {
        Ok(body) => ExchangeBody::passed(exported.watched(body, place), record),
        Err(failure) => return record.fail(&failure),
    };
    if let Err(error) = send_bytes(body, stream.send, None, |error| error.is_of_target()).await {
        debug!(%error, "a raw stream was cut");
    }
}

/// What the responder is told. spec: ER-9
pub(super) fn cause_of(failure: &Failure) -> OpenCause {
    match failure.cause() {
        Cause::Denied => OpenCause::Denied,
        Cause::UnknownService => OpenCause::UnknownService,
        cause => refused::cause_of(cause).unwrap_or(OpenCause::Internal),
    }
}
