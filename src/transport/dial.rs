//! What an initiator does to get a tunnel, whatever carries it: connect, then claim.
//!
//! The two steps are apart so that several connections may be attempted at once while only one of them makes the claim:
//! a responder that heard the same claim twice would have to give up one of them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::handshake::{Hello, Welcome};
use crate::transport::arrival::Accept;
use crate::transport::error::DialError;
use crate::transport::kind::TransportKind;
use crate::transport::link::{Admitted as _, Link};
use crate::transport::serve::{HttpService, Serve};
use crate::transport::state::CloseReason;
use crate::transport::tunnel::Tunnel;
use crate::transport::{quic, tcp};

/// Dials tunnels over each transport that is configured.
#[derive(Debug, Clone)]
pub struct Dialer {
    quic: Option<quic::Dialer>,
    tcp: Option<tcp::Dialer>,
    envoy: Option<tcp::envoy::Dialer>,
}

/// A connection whose TLS is done; nothing was claimed on it yet.
#[derive(Debug)]
pub enum Connected {
    /// Over QUIC.
    Quic(quic::Connected),
    /// Over TCP.
    Tcp(tcp::Connected),
    /// To an Envoy, over TCP.
    Envoy(tcp::envoy::Connected),
}

/// An admitted tunnel that waits to be run.
#[derive(Debug)]
pub struct Dialed {
    /// Its handle.
    pub tunnel: Tunnel,
    /// What the responder said.
    pub welcome: Welcome,
    link: DialedLink,
}

type DialedLink = Link<quic::Dialed, tcp::Dialed, tcp::envoy::Dialed>;

impl Dialer {
    /// A dialer of these transports.
    pub fn new(quic: Option<quic::Dialer>, tcp: Option<tcp::Dialer>) -> Self {
        Self { quic, tcp, envoy: None }
    }

    /// The same, which dials an Envoy responder as well.
    pub fn with_envoy(self, envoy: tcp::envoy::Dialer) -> Self {
        Self { envoy: Some(envoy), ..self }
    }

    /// The same, for a path whose round trip is known: over QUIC a lost first packet is sent again sooner.
    pub fn expecting(&self, rtt: Duration) -> Self {
        Self { quic: self.quic.as_ref().map(|quic| quic.expecting(rtt)), ..self.clone() }
    }

    /// Connects and finishes TLS, within the handshake timeout.
    ///
    /// # Errors
    /// [`DialError`]; [`DialError::Address`] for a transport that this dialer was not made for.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection.
    pub async fn connect(
        &self,
        over: TransportKind,
        address: SocketAddr,
        server_name: &str,
    ) -> Result<Connected, DialError> {
        match (over, &self.quic, &self.tcp, &self.envoy) {
            (TransportKind::Quic, Some(quic), _, _) => quic.connect(address, server_name).await.map(Connected::Quic),
            (TransportKind::Tcp, _, Some(tcp), _) => tcp.connect(address, server_name).await.map(Connected::Tcp),
            (TransportKind::Envoy, _, _, Some(envoy)) => {
                envoy.connect(address, server_name).await.map(Connected::Envoy)
            }
            _ => Err(DialError::Address(format!("{over} is not a transport of this initiator"))),
        }
    }
}

impl Connected {
    /// What it runs over.
    pub fn transport(&self) -> TransportKind {
        match self {
            Self::Quic(_) => TransportKind::Quic,
            Self::Tcp(_) => TransportKind::Tcp,
            Self::Envoy(_) => TransportKind::Envoy,
        }
    }

    /// Resolves when the connection has ended, or its path carries nothing any more, with the reason. To be awaited while
    /// the connection waits for its claim: over QUIC this is also what keeps asking for signs of life.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&mut self) -> DialError {
        match self {
            Self::Quic(connected) => connected.closed().await,
            Self::Tcp(connected) => connected.closed().await,
            Self::Envoy(connected) => connected.closed().await,
        }
    }

    /// Ends a connection that is not needed after all, so that the responder sees no fault in it.
    ///
    /// # Cancel safety
    /// Dropping the future ends the connection abruptly.
    pub async fn give_up(self) {
        match self {
            Self::Quic(connected) => connected.give_up(),
            Self::Tcp(connected) => connected.give_up().await,
            // It has said nothing yet, and an Envoy takes the end of the connection for the whole message.
            Self::Envoy(connected) => drop(connected),
        }
    }

    /// Asks for admission, within the handshake timeout.
    ///
    /// # Errors
    /// [`DialError`]; a refusal is an answer, see [`DialError::is_answer`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection; the claim may have been heard.
    pub async fn claim(self, hello: &Hello) -> Result<Dialed, DialError> {
        match self {
            Self::Quic(connected) => {
                let (tunnel, welcome, dialed) = connected.claim(hello).await?;
                Ok(Dialed { tunnel, welcome, link: Link::Quic(Box::new(dialed)) })
            }
            Self::Tcp(connected) => {
                let (tunnel, welcome, dialed) = connected.claim(hello).await?;
                Ok(Dialed { tunnel, welcome, link: Link::Tcp(Box::new(dialed)) })
            }
            Self::Envoy(connected) => {
                let (tunnel, welcome, dialed) = connected.claim(hello).await?;
                Ok(Dialed { tunnel, welcome, link: Link::Envoy(Box::new(dialed)) })
            }
        }
    }
}

impl Dialed {
    /// Answers the requests of the responder with a service until the tunnel is gone, and refuses what is not HTTP; see
    /// [`Dialed::run`].
    pub async fn serve<S: Serve + Sync>(self, service: S) -> CloseReason {
        self.run(HttpService(service)).await
    }

    /// Hands over what the responder opens until the tunnel is gone.
    ///
    /// Not cancel safe: dropping the future closes the connection abruptly. Use [`Tunnel::drain`] or [`Tunnel::close`].
    pub async fn run<A: Accept>(self, accept: A) -> CloseReason {
        // Whoever lets go of the handle while it drains must not end it: it is held until the end.
        let Self { tunnel: _tunnel, link, .. } = self;
        match link {
            Link::Quic(dialed) => dialed.run(accept).await,
            Link::Tcp(dialed) => dialed.run(accept).await,
            Link::Envoy(dialed) => dialed.run(accept).await,
        }
    }
}
