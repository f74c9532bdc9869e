//! CONNECT: where it goes, and when it goes elsewhere.

use super::*;
use crate::protocol::code::OpenCause;
use crate::protocol::stream::Refused;
use crate::routing::Connect;

fn gateway() -> Gateway<Fake> {
    gateway_with(RouterSettings { connect: Connect::All, ..settings() })
}

/// What its sender has sent already is there.
fn connect() -> Request<Full<Bytes>> {
    let request = Request::builder().method("CONNECT").uri("ssh:22").header("x-node-id", "edge-17");
    request.body(Full::new(Bytes::from_static(b"SSH-2.0"))).unwrap()
}

// spec: ST-65
#[tokio::test]
async fn a_connect_names_its_service_and_moves_until_it_is_open() {
    for error in [not_sent(), lost(), OpenError::Rejected, OpenError::NoRoom] {
        let (gateway, told) = (gateway(), error.to_string());
        let first = tunnel(&gateway, [Step::FailsFirst(error)]);
        let second = tunnel(&gateway, [Step::Echo]);
        let response = ask(&gateway, connect()).await;
        assert_eq!(response.status(), StatusCode::OK, "{told}");
        assert!(response.headers().is_empty(), "nothing is said of a body, nor of the way");
        assert_eq!(text(response).await, "SSH-2.0", "{told}");
        assert_eq!((first.seen(), second.seen()), (1, 1), "{told}");
        assert_eq!(second.0.seen.lock().unwrap()[0].0.as_ref().map(ServiceName::as_str), Some("ssh"));
    }
}

// spec: ER-9, ST-80
#[tokio::test]
async fn a_refusal_of_the_initiator_is_an_answer() {
    for (cause, status) in [
        (OpenCause::UnknownService, 404),
        (OpenCause::WrongKind, 404),
        (OpenCause::TargetRefused, 502),
        (OpenCause::TargetUnreachable, 502),
        (OpenCause::TargetTimedOut, 504),
        (OpenCause::Limit, 503),
        (OpenCause::Denied, 403),
        (OpenCause::Internal, 502),
    ] {
        let gateway = gateway();
        tunnel(&gateway, [Step::FailsFirst(OpenError::Refused(Refused { cause, reason: "so".into() }))]);
        let second = tunnel(&gateway, []);
        assert_eq!(ask(&gateway, connect()).await.status().as_u16(), status, "{cause}");
        assert_eq!(second.seen(), 0, "{cause}");
    }
}
