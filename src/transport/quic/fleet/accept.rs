//! A sibling that has dialled and greets, and is served if it may be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn::VarInt;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::protocol::code::CloseCode;
use crate::protocol::fleet::{Greeted, Greeting};
use crate::protocol::handshake::Refusal;
use crate::protocol::session::Session;
use crate::transport::accept::{AcceptError, Missing};
use crate::transport::control::{COMMANDS, Control};
use crate::transport::handshakes::{Seat, Stage};
use crate::transport::quic::accept::{Incoming, connection_error, peer_certificates, secure};
use crate::transport::quic::control::{Connection, ControlStream};
use crate::transport::quic::fleet::greet::{self, NotGreeted};
use crate::transport::quic::fleet::serve::{Relay, serve_siblings};
use crate::transport::quic::fleet::state_of;
use crate::transport::quic::settings::Settings;
use crate::transport::state::CloseReason;
use crate::transport::tunnel::Tunnel;

/// How long a refusal may take to arrive, and a greeting to be taken.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection whose TLS is done and whose greeting was read. Nothing was said yet of whether it is taken.
#[derive(Debug)]
pub(crate) struct Claiming {
    /// Who it says it is.
    pub(crate) greeting: Greeting,
    /// What it showed, its own certificate first.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    quic: quinn::Connection,
    stream: (quinn::SendStream, quinn::RecvStream),
    behind: BytesMut,
    settings: Settings,
    seat: Seat,
}

impl Incoming {
    /// Finishes TLS and reads the greeting, both within one handshake timeout. Cancel safe: dropping it drops the connection.
    pub(crate) async fn greeting(self) -> Result<Claiming, AcceptError> {
        let limit = self.settings.tunnel.timing.handshake_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let Self { incoming, config, settings, mut seat, .. } = self;
        let quic = secure((incoming, config), &mut seat, limit, deadline).await?;
        let greeted = async {
            let (send, mut recv) = quic.accept_bi().await.map_err(|error| connection_error(&error))?;
            match greet::read(&mut recv).await {
                Ok((Greeted::By(greeting), behind)) => Ok((greeting, (send, recv), behind)),
                Ok((Greeted::Refused(_), _)) => Err(AcceptError::Hello("a refusal instead of a greeting".into())),
                Err(NotGreeted::Broken(error)) => Err(AcceptError::Hello(error.to_string())),
                Err(NotGreeted::Ended(Some(error))) => Err(connection_error(&error)),
                Err(NotGreeted::Ended(None)) => Err(AcceptError::Hello("the control stream ended".into())),
            }
        };
        let heard = async {
            seat.advance(Stage::Claim).await.map_err(|_| AcceptError::GaveWay(Missing::Hello))?;
            let greeted = seat.hold(tokio::time::timeout_at(deadline, greeted)).await;
            let greeted = greeted.map_err(|_| AcceptError::GaveWay(Missing::Hello))?;
            greeted.map_err(|_| AcceptError::Timeout { missing: Missing::Hello, limit })?
        };
        match heard.await {
            Ok((greeting, stream, behind)) => {
                let certificates = peer_certificates(&quic);
                Ok(Claiming { greeting, certificates, quic, stream, behind, settings, seat })
            }
            Err(error) => {
                let code = match &error {
                    AcceptError::Hello(_) => CloseCode::Protocol,
                    _ => CloseCode::HandshakeTimeout,
                };
                quic.close(VarInt::from_u32(code.number()), error.to_string().as_bytes());
                Err(error)
            }
        }
    }
}

impl Claiming {
    /// Says no, waits until that arrived (a few seconds at most) and closes. spec: FL-34
    pub(crate) async fn refuse(mut self, refusal: &Refusal) {
        let said = async {
            if greet::refuse(&mut self.stream.0, refusal).await.is_ok() {
                let _ = self.stream.0.stopped().await;
            }
        };
        let _ = timeout(FAREWELL_TIMEOUT, said).await;
        self.quic.close(VarInt::from_u32(CloseCode::Refused.number()), refusal.reason.as_bytes());
    }

    /// Says who this end is. The handle keeps the connection open; the future serves what the sibling asks for until the
    /// connection is gone.
    pub(crate) fn serve<R: Relay>(
        self,
        own: Greeting,
        relay: R,
    ) -> (Tunnel, impl Future<Output = CloseReason> + Send + 'static) {
        let Self { greeting, quic, stream: (mut send, recv), behind, settings, seat, .. } = self;
        let state = state_of((&own, &greeting), quic.rtt());
        let (sender, mut commands) = mpsc::channel(COMMANDS);
        let connection = Connection {
            quic: quic.clone(),
            state: Arc::clone(&state),
            commands: sender,
            flows: Arc::default(),
            send_room: settings.send_room(),
            says_here: false,
            via: None,
        };
        let serving = async move {
            // Where this fails, the connection is gone, which the driver sees; so is one that leaves a greeting no room.
            if timeout(FAREWELL_TIMEOUT, greet::greet(&mut send, &own)).await.is_err() {
                quic.close(VarInt::from_u32(CloseCode::HandshakeTimeout.number()), b"it takes no greeting");
            }
            drop(seat);
            let session = Session::between_siblings(Instant::now(), false, own.limits, settings.tunnel.timing);
            let mut control = Control::new(ControlStream::new(quic.clone(), (send, recv), settings.credit()), session);
            // An error has queued the close that it calls for.
            let _ = control.session().receive(Instant::now(), &behind);
            let streams = serve_siblings(quic, Arc::clone(&state), settings, relay);
            let driver = control.run(&state, &mut commands, false);
            tokio::pin!(streams, driver);
            tokio::select! {
                reason = &mut driver => reason,
                () = &mut streams => driver.await,
            }
        };
        (Tunnel::quic(connection), serving)
    }
}
