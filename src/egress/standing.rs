//! What an open connection rests on, and what becomes of it under other terms.
//!
//! HTTP/2 and HTTP/3 are told once how large heads may be, and TLS asks once who is there. So a connection whose listener has
//! other limits by now is asked to take its next request to a new one (`connection: close`, GOAWAY), and serves what comes all
//! the same; over HTTP/1 the limits of heads hold for its next request. One whose client would not be let in any more takes
//! nothing new, finishes what it carries, and is cut when that takes too long.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::time::sleep;

use crate::egress::heads::HeadBounds;
use crate::egress::terms::{Accepting, Current};
use crate::egress::{End, Settings};
use crate::protocol::limits::DEFAULT_DRAIN_DEADLINE;
use crate::tls::{ClientJudge, Rejection};

/// How long what a client has under way may take that would not be let in any more.
const CUT_AFTER: Duration = DEFAULT_DRAIN_DEADLINE;

/// Where it is said what connections are accepted under.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Fixed(Accepting),
    Current(Arc<Current>),
}

impl Source {
    pub(super) fn accepting(&self) -> Accepting {
        match self {
            Self::Fixed(accepting) => accepting.clone(),
            Self::Current(current) => current.accepting(),
        }
    }

    /// Done when something else is said since this was called.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        let changed = match self {
            Self::Fixed(_) => None,
            Self::Current(current) => Some(current.changed()),
        };
        async {
            match changed {
                Some(changed) => changed.await,
                None => std::future::pending().await,
            }
        }
    }
}

/// What a connection was accepted under, and how it is told to end.
#[derive(Debug)]
pub(super) struct Standing {
    source: Source,
    remote: SocketAddr,
    settings: Arc<Settings>,
    has_tls: bool,
    clients: Arc<ClientJudge>,
    /// What its client showed, its own certificate first.
    chain: Vec<CertificateDer<'static>>,
    end: End,
    heads: Arc<HeadBounds>,
}

impl Standing {
    /// Of a connection of a listener that ends so, accepted under `accepting`.
    pub(super) fn new(remote: SocketAddr, source: Source, accepting: &Accepting, end: &End) -> Self {
        let Accepting { settings, tls, clients, .. } = accepting;
        Self {
            source,
            remote,
            settings: Arc::clone(settings),
            has_tls: tls.is_some(),
            clients: Arc::clone(clients),
            chain: Vec::new(),
            end: end.within(),
            heads: HeadBounds::new(settings),
        }
    }

    /// The client has shown this.
    pub(super) fn showed(&mut self, chain: Vec<CertificateDer<'static>>) {
        self.chain = chain;
    }

    /// How the connection learns that it is to end.
    pub(super) fn end(&self) -> End {
        self.end.clone()
    }

    /// How large the next head may be.
    pub(super) fn heads(&self) -> Arc<HeadBounds> {
        Arc::clone(&self.heads)
    }

    /// Serves the connection to its end, which is earlier where the terms that follow are other ones. Cancel safe if that is.
    pub(super) async fn hold(self, mut served: Pin<&mut impl Future<Output = ()>>) {
        tokio::select! {
            // What the terms say is known before the next request is read.
            biased;
            () = self.follow() => {}
            () = &mut served => {}
        }
    }

    /// Follows the terms. Returns when the connection is to be cut.
    async fn follow(mut self) {
        let source = self.source.clone();
        loop {
            // Before looking: a change in between is not missed.
            let changed = source.changed();
            if let Some(rejection) = self.look() {
                let remote = self.remote;
                tracing::info!(%remote, %rejection, "a client would not be let in any more: draining its connection");
                self.end.drain.cancel();
                sleep(CUT_AFTER).await;
                tracing::info!(%remote, %rejection, "a client would not be let in any more: its connection is cut");
                return;
            }
            changed.await;
        }
    }

    /// Goes by the terms that hold now. Returns why the client would not be let in any more, where that is so.
    fn look(&mut self) -> Option<Box<Rejection>> {
        let now = self.source.accepting();
        self.heads.put(&now.settings);
        if self.has_tls != now.tls.is_some() || !is_set_up_alike(&self.settings, &now.settings) {
            self.end.leaving.cancel();
        }
        if Arc::ptr_eq(&self.clients, &now.clients) {
            return None;
        }
        self.clients = now.clients;
        let rejection = self.clients.judge(&self.chain, SystemTime::now()).err()?;
        self.end.leaving.cancel();
        Some(rejection)
    }
}

/// Whether connections are told and bounded alike; how many there may be is no matter of any of them.
fn is_set_up_alike(before: &Arc<Settings>, now: &Arc<Settings>) -> bool {
    Arc::ptr_eq(before, now) || each(before) == each(now)
}

/// What is bounded of each connection.
fn each(settings: &Settings) -> Settings {
    Settings { max_connections: 0, ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::Instant;

    use super::*;
    use crate::egress::Terms;
    use crate::policy::San;
    use crate::routing::RouterSettings;
    use crate::telemetry::{Metrics, Side};
    use crate::tls::pki::{Authority, Validity};
    use crate::tls::{ClientCertificates, EgressTls, Trust};

    struct World {
        current: Arc<Current>,
        one: Authority,
        other: Authority,
        chain: Vec<CertificateDer<'static>>,
    }

    impl World {
        /// A listener that lets in clients of the first authority.
        fn new() -> Self {
            let validity = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(3600) };
            let [one, other] = ["one", "other"].map(|name| Authority::create(name, validity).unwrap());
            let chain = vec![one.node(&[San::Uri("spiffe://x/c".into())], validity).unwrap().certificate().clone()];
            let terms = Terms { tls: tls(&one, &[&one]), ..Terms::new(RouterSettings::new("any".parse().unwrap())) };
            let current = Arc::new(Current::new(terms, Metrics::new().targets(Side::Egress)).unwrap());
            Self { current, one, other, chain }
        }

        /// A connection of a client of the first authority.
        fn standing(&self) -> Standing {
            let (source, remote) = (Source::Current(Arc::clone(&self.current)), SocketAddr::from(([127, 0, 0, 1], 1)));
            let mut standing = Standing::new(remote, source, &self.current.accepting(), &End::default());
            standing.showed(self.chain.clone());
            standing
        }
    }

    fn tls(of: &Authority, lets_in: &[&Authority]) -> Option<Arc<EgressTls>> {
        let validity = Validity { from: SystemTime::now(), lifetime: Duration::from_secs(3600) };
        let credentials = of.responder(&["edge.test".to_owned()], validity).unwrap().credentials().unwrap();
        let roots = lets_in.iter().map(|authority| authority.certificate().clone());
        let clients = ClientCertificates::Required(Trust::roots(roots));
        Some(Arc::new(EgressTls { credentials, clients }))
    }

    /// Lets everybody do what is due.
    async fn settle() {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_does_not_end_that_is_not_let_in_any_more_is_cut() {
        let world = World::new();
        let standing = world.standing();
        let end = standing.end();
        let held = tokio::spawn(async move { standing.hold(pin!(std::future::pending())).await });
        settle().await;
        let (other, both) = (tls(&world.one, &[&world.other]), tls(&world.one, &[&world.other, &world.one]));
        world.current.update(|terms| terms.tls = both).unwrap();
        settle().await;
        assert!(!end.leaving.is_cancelled(), "it is let in still");
        let begun = Instant::now();
        world.current.update(|terms| terms.tls = other).unwrap();
        settle().await;
        assert!(end.leaving.is_cancelled() && end.drain.is_cancelled() && !held.is_finished());
        held.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), CUT_AFTER.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn other_limits_ask_a_connection_to_come_back_and_other_settings_do_not() {
        let world = World::new();
        let standing = world.standing();
        let (end, heads) = (standing.end(), standing.heads());
        let held = tokio::spawn(async move { standing.hold(pin!(std::future::pending())).await });
        settle().await;
        let same = tls(&world.one, &[&world.one]);
        world
            .current
            .update(|terms| {
                terms.settings.max_connections = 7;
                terms.router.hold = Duration::from_secs(1);
                terms.tls = same;
            })
            .unwrap();
        settle().await;
        assert!(!end.leaving.is_cancelled());
        world.current.update(|terms| terms.settings.max_head_bytes = 4_096).unwrap();
        settle().await;
        assert!(end.leaving.is_cancelled() && !end.drain.is_cancelled());
        assert_eq!(heads.get().0, 4_096);
        held.abort();
    }

    // Between the acceptance of a connection and its first look.
    #[tokio::test]
    async fn a_change_during_the_handshake_is_not_missed() {
        let world = World::new();
        let standing = world.standing();
        let (end, heads) = (standing.end(), standing.heads());
        world.current.update(|terms| terms.settings.max_head_fields = 40).unwrap();
        let held = tokio::spawn(async move { standing.hold(pin!(std::future::pending())).await });
        end.leaving.cancelled().await;
        assert_eq!(heads.get().1, 40);
        held.abort();
    }
}
