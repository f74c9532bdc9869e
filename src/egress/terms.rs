//! What an egress goes by: one snapshot of everything that can be changed while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use http::request;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::egress::http3::{Tokens, server_config};
use crate::egress::judge::{Judge, TrafficRules};
use crate::egress::tcp::TcpTerms;
use crate::egress::{ConnectionDetails, ConnectionInfo, Settings};
use crate::message::failure::Failure;
use crate::message::forward::{self, Forms, Hop};
use crate::message::rewrite::{self, Settled, Step};
use crate::message::trust::Trust;
use crate::proxy::AccessLog;
use crate::routing::RouterSettings;
use crate::telemetry::TargetMetrics;
use crate::tls::{self, ClientCertificates, ClientJudge, EgressTls, TlsError};

/// What an egress goes by. All of it can be changed while it runs, see [`Handle::update`](super::Handle::update).
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whom a request asks for, and for how long it waits. Holds for requests that are read from now on.
    pub router: RouterSettings,
    /// TLS with ALPN; `None`: clear text. Holds for connections that come from now on; one whose client would not be let in
    /// any more finishes what it carries and is closed, see [`Handle::update`](super::Handle::update). The same `Arc` keeps what was made
    /// of it, so that clients can resume their TLS sessions.
    pub tls: Option<Arc<EgressTls>>,
    /// Takes each connection as bytes for a service, and no requests; `tls` and what is about requests has no meaning then.
    /// `None`: HTTP. Holds for connections that come from now on.
    pub tcp: Option<TcpTerms>,
    /// Who begins each connection over TCP with a PROXY header (version 1 or 2) that says who connected, and must do so. What
    /// anybody else sends is for the target, or no request, whatever it looks like. Default: nobody. Holds for connections that
    /// come from now on.
    pub proxies: Trust,
    /// Limits and timeouts of connections that come from now on; open ones are asked to come back under them. A smaller number of
    /// connections ends none of them.
    pub settings: Settings,
    /// Whether each exchange is logged. Holds for requests that are read from now on.
    pub access_log: AccessLog,
    /// Who may say on whose behalf a request comes (`Forwarded`, `X-Forwarded-*` and their like); what anybody else says
    /// of that is removed. Default: nobody. Holds for requests that are read from now on.
    pub trust: Trust,
    /// In which forms that is told. Holds for requests that are read from now on.
    pub forwarded: Forms,
    /// What is done to each request before it enters a tunnel, in this order; where it goes is decided by what came. Holds
    /// for requests that are read from now on.
    pub rewrite: Vec<Step>,
    /// Which requests are denied or go elsewhere; default: none. Holds for requests that are read from now on.
    pub policies: TrafficRules,
}

impl Terms {
    /// Requests go where `router` says; the rest is as it is by default, in clear text and without an access log.
    pub fn new(router: RouterSettings) -> Self {
        Self {
            router,
            tls: None,
            tcp: None,
            proxies: Trust::default(),
            settings: Settings::default(),
            access_log: AccessLog::Off,
            trust: Trust::default(),
            forwarded: Forms::default(),
            rewrite: Vec::new(),
            policies: TrafficRules::default(),
        }
    }
}

/// Terms, ready for use.
#[derive(Debug)]
pub(super) struct InForce {
    terms: Terms,
    pub(super) judge: Judge,
    /// What no trailers may bring.
    pub(super) settled: Settled,
    accepting: Accepting,
}

/// What a connection is accepted under.
#[derive(Debug, Clone)]
pub(super) struct Accepting {
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    /// Who may come. The same as long as the same clients are let in.
    pub(super) clients: Arc<ClientJudge>,
    /// The same TLS for QUIC.
    quic_tls: Option<Arc<rustls::ServerConfig>>,
    /// For HTTP/3, if there is any.
    pub(super) http3: Option<Arc<quinn::ServerConfig>>,
    pub(super) settings: Arc<Settings>,
    /// For bytes, and no requests.
    pub(super) tcp: Option<Arc<TcpTerms>>,
    /// See [`Terms::proxies`].
    pub(super) proxies: Arc<Trust>,
    tokens: Tokens,
}

/// The terms that hold now. Whoever goes by them looks once for each request or connection, and sees all of one or all of
/// another.
#[derive(Debug)]
pub(super) struct Current {
    in_force: ArcSwap<InForce>,
    /// Held by whoever swaps, from reading the old terms on.
    swapping: Mutex<()>,
    changed: Notify,
    metrics: TargetMetrics,
}

impl Terms {
    /// As [`InForce::prepare`].
    pub(super) fn prepare(&self, head: &mut request::Parts, connection: &ConnectionInfo) -> Result<(), Failure> {
        let ConnectionDetails { remote, local, tls, .. } = **connection;
        forward::request(head, &Hop { remote, local, tls, trust: &self.trust, forms: self.forwarded })?;
        rewrite::head(&self.rewrite, head)
    }
}

impl InForce {
    pub(super) fn access_log(&self) -> AccessLog {
        self.terms.access_log
    }

    /// Makes a request that came over this connection what enters the tunnel.
    ///
    /// # Errors
    ///
    /// The request is at fault.
    pub(super) fn prepare(&self, head: &mut request::Parts, connection: &ConnectionInfo) -> Result<(), Failure> {
        self.terms.prepare(head, connection)
    }

    pub(super) fn accepting(&self) -> &Accepting {
        &self.accepting
    }
}

impl Current {
    pub(super) fn new(terms: Terms, metrics: TargetMetrics) -> Result<Self, TlsError> {
        let accepting = Accepting::new(&terms, Tokens::new())?;
        let in_force = in_force(terms, accepting);
        in_force.judge.begin(&metrics);
        let in_force = ArcSwap::from_pointee(in_force);
        Ok(Self { in_force, swapping: Mutex::default(), changed: Notify::new(), metrics })
    }

    /// Not to be held for long, nor across an await.
    pub(super) fn load(&self) -> Guard<Arc<InForce>> {
        self.in_force.load()
    }

    pub(super) fn terms(&self) -> Terms {
        self.in_force.load().terms.clone()
    }

    pub(super) fn accepting(&self) -> Accepting {
        self.in_force.load().accepting().clone()
    }

    /// Done when the terms have changed since this was called.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Puts changed terms in force, all at once. Waits for another update to be done, so that none is lost.
    pub(super) fn update(&self, change: impl FnOnce(&mut Terms)) -> Result<(), TlsError> {
        let _lock = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut terms = self.terms();
        change(&mut terms);
        self.put(self.next(terms)?);
        Ok(())
    }

    /// Makes terms ready to follow those that hold, from which is taken over what has not changed.
    pub(super) fn next(&self, terms: Terms) -> Result<InForce, TlsError> {
        let before = self.in_force.load();
        let same = match (&before.terms.tls, &terms.tls) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after) && terms.tcp.is_none(),
            _ => false,
        };
        let mut accepting =
            if same { before.accepting.with(&terms) } else { Accepting::new(&terms, before.accepting.tokens.clone())? };
        if lets_in(&before.terms) == lets_in(&terms) {
            accepting.clients = Arc::clone(&before.accepting.clients);
        }
        Ok(in_force(terms, accepting))
    }

    /// Puts them in force.
    pub(super) fn put(&self, next: InForce) {
        next.judge.begin(&self.metrics);
        self.in_force.store(Arc::new(next));
        self.changed.notify_waiters();
    }
}

impl Accepting {
    /// Connections over TCP only.
    pub(super) fn tcp(tls: Option<Arc<rustls::ServerConfig>>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let (proxies, clients) = (Arc::default(), Arc::new(ClientJudge::of_anybody()));
        Self { tls, clients, quic_tls: None, http3: None, settings, tcp: None, proxies, tokens: Tokens::new() }
    }

    fn new(terms: &Terms, tokens: Tokens) -> Result<Self, TlsError> {
        let configured = |config: fn(&EgressTls) -> Result<rustls::ServerConfig, TlsError>| {
            let tls = terms.tls.as_deref().filter(|_| terms.tcp.is_none());
            tls.map(config).transpose().map(|config| config.map(Arc::new))
        };
        let (tls, quic_tls) = (configured(tls::egress_config)?, configured(tls::http3_config)?);
        let clients = terms.tls.as_ref().map(|tls| ClientJudge::new(&tls.clients)).transpose()?;
        let clients = Arc::new(clients.unwrap_or_else(ClientJudge::of_anybody));
        let (settings, proxies) = (Arc::default(), Arc::default());
        Ok(Self { tls, clients, quic_tls, http3: None, settings, tcp: None, proxies, tokens }.with(terms))
    }

    /// The same TLS under other terms.
    fn with(&self, terms: &Terms) -> Self {
        let settings = &terms.settings;
        let quic_tls = self.quic_tls.as_ref().filter(|_| settings.http3.enabled);
        let http3 = match &self.http3 {
            // What a client was told before holds for the early data of its next connection: the sessions go with it.
            // RFC 9000 section 7.4.1, RFC 9114 section 7.2.4.2
            Some(http3) if quic_tls.is_some() && tells_the_same(&self.settings, settings) => Some(Arc::clone(http3)),
            _ => quic_tls.map(|tls| Arc::new(server_config(Arc::clone(tls), settings, &self.tokens))),
        };
        let (tls, quic_tls, tokens) = (self.tls.clone(), self.quic_tls.clone(), self.tokens.clone());
        let clients = Arc::clone(&self.clients);
        let tcp = terms.tcp.clone().map(Arc::new);
        let (settings, proxies) = (Arc::new(settings.clone()), Arc::new(terms.proxies.clone()));
        Self { tls, clients, quic_tls, http3, settings, tcp, proxies, tokens }
    }
}

/// What clients have to show.
fn lets_in(terms: &Terms) -> Option<&ClientCertificates> {
    terms.tls.as_ref().map(|tls| &tls.clients)
}

/// Whether clients of HTTP/3 are told the same bounds.
fn tells_the_same(before: &Settings, after: &Settings) -> bool {
    before.max_head_bytes == after.max_head_bytes && before.http3 == after.http3
}

fn in_force(terms: Terms, accepting: Accepting) -> InForce {
    let told = (terms.trust.clone(), terms.forwarded);
    let judge = Judge::new(terms.router.clone(), terms.policies.clone(), told);
    InForce { settled: Settled::new(&terms.rewrite, judge.deciding_fields()), judge, accepting, terms }
}
