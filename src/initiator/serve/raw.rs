//! A raw stream, taken to the target of its service. spec: ST-56 to ST-63

use std::sync::Arc;

use http::uri::Authority;
use http::{Method, Request, StatusCode, Uri, request};
use tracing::{Instrument, debug};

use super::exported::Exported;
use super::{Services, span};
use crate::id::ServiceName;
use crate::initiator::targets::RawConnection;
use crate::message::failure::{Cause, Failure};
use crate::protocol::code::OpenCause;
use crate::proxy::connect::send_bytes;
use crate::proxy::{ExchangeBody, Record};
use crate::transport::{RawArrival, RecvBody};

/// Passes bytes both ways until both directions have ended, or one of them was cut.
///
/// Cancel safety: dropping the future resets the stream, and the connection to the target.
pub(super) async fn serve(services: Services, arrival: RawArrival) {
    let span = span(&Method::CONNECT, Some(arrival.tunnel()));
    let mut record = services.0.recorder.begin(&head(&arrival.service), None);
    record.through(arrival.tunnel());
    async {
        match connect(&services, &arrival.service, &mut record).await {
            Ok((exported, connection)) => pass(exported, connection, arrival, record).await,
            Err((cause, failure)) => {
                record.fail(&failure);
                record.responded(failure.cause().status());
                // Whoever has gone needs no answer.
                drop(arrival.refuse(cause, failure.details()).await);
            }
        }
    }
    .instrument(span)
    .await;
}

/// What is recorded of it: a CONNECT to the service.
fn head(service: &ServiceName) -> request::Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::CONNECT;
    if let Ok(authority) = Authority::try_from(service.as_str()) {
        head.uri = Uri::from(authority);
    }
    head
}

async fn connect<'a>(
    services: &'a Services,
    name: &ServiceName,
    record: &mut Record,
) -> Result<(&'a Arc<Exported>, RawConnection), (OpenCause, Failure)> {
    let exported = services.named(name).map_err(|failure| (OpenCause::UnknownService, failure))?;
    if !exported.is_raw() {
        let details = format!("the service {name} takes requests, and no CONNECT");
        return Err((OpenCause::WrongKind, Failure::new(Cause::UnknownService, details)));
    }
    let connection = exported.connect(record).await.map_err(|failure| (cause_of(&failure), failure))?;
    Ok((exported, connection))
}

async fn pass(exported: &Exported, connection: RawConnection, arrival: RawArrival, mut record: Record) {
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
        Ok(body) => ExchangeBody::passed(exported.watched(body), record),
        Err(failure) => return record.fail(&failure),
    };
    if let Err(error) = send_bytes(body, stream.send, None, |error| error.is_of_target()).await {
        debug!(%error, "a raw stream was cut");
    }
}

/// What the responder is told. spec: ER-9
fn cause_of(failure: &Failure) -> OpenCause {
    match failure.cause() {
        Cause::TargetRefused => OpenCause::TargetRefused,
        Cause::TargetTimeout => OpenCause::TargetTimedOut,
        Cause::TargetDns | Cause::TargetUnreachable => OpenCause::TargetUnreachable,
        _ => OpenCause::Internal,
    }
}
