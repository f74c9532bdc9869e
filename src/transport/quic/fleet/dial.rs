//! Dialling a sibling, which then is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn::VarInt;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::protocol::code::CloseCode;
use crate::protocol::fleet::{Greeted, Greeting};
use crate::protocol::session::Session;
use crate::transport::control::{COMMANDS, Command, Control};
use crate::transport::error::DialError;
use crate::transport::kind::TransportKind;
use crate::transport::quic::control::{Connection, ControlStream};
use crate::transport::quic::dial::connection_error;
use crate::transport::quic::fleet::greet::{self, NotGreeted};
use crate::transport::quic::fleet::state_of;
use crate::transport::quic::settings::{Either, QuicSettings, Settings};
use crate::transport::settings::TunnelSettings;
use crate::transport::state::{CloseReason, TunnelState};
use crate::transport::tunnel::Tunnel;

/// Dials siblings from one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct SiblingDialer {
    endpoint: quinn::Endpoint,
    config: Either<quinn::ClientConfig>,
    settings: Settings,
}

/// A connection to a sibling that has greeted, which waits to be driven.
#[derive(Debug)]
pub(crate) struct Asking {
    state: Arc<TunnelState>,
    control: Control<ControlStream>,
    commands: mpsc::Receiver<Command>,
}

impl SiblingDialer {
    /// `tls` must offer the ALPN `adit-fleet/1` and TLS 1.3.
    pub(crate) fn new(
        endpoint: quinn::Endpoint,
        tls: rustls::ClientConfig,
        (tunnel, quic): (TunnelSettings, QuicSettings),
    ) -> Result<Self, DialError> {
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| DialError::Tls(error.to_string()))?;
        let tls = quinn::ClientConfig::new(Arc::new(crypto));
        let settings = Settings { tunnel, quic };
        let config = Either::new(|datagrams| {
            let mut config = tls.clone();
            config.transport_config(settings.asking_transport(datagrams));
            config
        });
        Ok(Self { endpoint, config, settings })
    }

    /// Connects and greets, within the handshake timeout. The sibling's certificate is genuine then; whether it has the name
    /// that is greeted with is for the caller to see ([`Tunnel::peer_certificates`]) before anything is asked. spec: FL-32
    ///
    /// Cancel safe: dropping the future abandons the connection.
    pub(crate) async fn dial(
        &self,
        (address, server_name): (SocketAddr, &str),
        own: &Greeting,
    ) -> Result<(Tunnel, Greeting, Asking), DialError> {
        let after = self.settings.tunnel.timing.handshake_timeout;
        let dialled = timeout(after, self.connect(address, server_name, own)).await;
        dialled.map_err(|_| DialError::Timeout { over: TransportKind::Quic, after })?
    }

    async fn connect(
        &self,
        address: SocketAddr,
        server_name: &str,
        own: &Greeting,
    ) -> Result<(Tunnel, Greeting, Asking), DialError> {
        let connecting = self.endpoint.connect_with(self.config.towards(address).clone(), address, server_name);
        let connecting = connecting.map_err(|error| DialError::Address(error.to_string()))?;
        let quic = connecting.await.map_err(|error| connection_error(&error))?;
        let (mut send, mut recv) = quic.open_bi().await.map_err(|error| connection_error(&error))?;
        // Where this fails, the read says why.
        let _ = greet::greet(&mut send, own).await;
        match greet::read(&mut recv).await {
            Ok((Greeted::By(peer), behind)) => Ok(self.asking(quic, (send, recv, behind), (own, peer))),
            Ok((Greeted::Refused(refusal), _)) => Err(DialError::Refused(refusal)),
            Err(NotGreeted::Ended(Some(error))) => Err(connection_error(&error)),
            Err(NotGreeted::Ended(None)) => Err(DialError::Connection("it ended before a greeting".into())),
            Err(NotGreeted::Broken(error)) => {
                let text = error.to_string();
                quic.close(VarInt::from_u32(CloseCode::Protocol.number()), text.as_bytes());
                Err(DialError::Connection(text))
            }
        }
    }

    fn asking(
        &self,
        quic: quinn::Connection,
        (send, recv, behind): (quinn::SendStream, quinn::RecvStream, BytesMut),
        (own, peer): (&Greeting, Greeting),
    ) -> (Tunnel, Greeting, Asking) {
        let state = state_of((own, &peer), quic.rtt());
        let session = Session::between_siblings(Instant::now(), true, own.limits, self.settings.tunnel.timing);
        let stream = ControlStream::new(quic.clone(), (send, recv), self.settings.credit());
        let mut control = Control::new(stream, session);
        // An error has queued the close that it calls for.
        let _ = control.session().receive(Instant::now(), &behind);
        let (sender, commands) = mpsc::channel(COMMANDS);
        let connection = Connection {
            quic,
            state: Arc::clone(&state),
            commands: sender,
            flows: Arc::default(),
            send_room: self.settings.send_room(),
            says_here: peer.here,
            via: None,
        };
        (Tunnel::quic(connection), peer, Asking { state, control, commands })
    }
}

impl Asking {
    /// Drives the connection until it is gone, or every handle of it is.
    pub(crate) async fn run(self) -> CloseReason {
        let Self { state, mut control, mut commands } = self;
        control.run(&state, &mut commands, true).await
    }
}
