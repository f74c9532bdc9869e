//! What an egress goes by: one snapshot of everything that can be changed while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::egress::Settings;
use crate::message::trust::Trust;
use crate::proxy::AccessLog;
use crate::routing::{Router, RouterSettings};
use crate::tls::{self, EgressTls, TlsError};

/// What an egress goes by. All of it can be changed while it runs, see [`Handle::update`](super::Handle::update).
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whom a request asks for, and for how long it waits. Holds for requests that are read from now on.
    pub router: RouterSettings,
    /// TLS with ALPN; `None`: clear text. Holds for connections that come from now on. The same `Arc` keeps what was made
    /// of it, so that clients can resume their TLS sessions.
    pub tls: Option<Arc<EgressTls>>,
    /// Limits and timeouts of connections that come from now on. A smaller number of connections ends none of them.
    pub settings: Settings,
    /// Whether each exchange is logged. Holds for requests that are read from now on.
    pub access_log: AccessLog,
    /// Who may say on whose behalf a request comes (`Forwarded`, `X-Forwarded-*` and their like); what anybody else says
    /// of that is removed. Default: nobody. Holds for requests that are read from now on.
    pub trust: Trust,
}

/// Terms, ready for use.
#[derive(Debug)]
pub(super) struct InForce {
    terms: Terms,
    pub(super) router: Router,
    accepting: Accepting,
}

/// What a connection is accepted under.
#[derive(Debug, Clone)]
pub(super) struct Accepting {
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    pub(super) settings: Arc<Settings>,
}

/// The terms that hold now. Whoever goes by them looks once for each request or connection, and sees all of one or all of
/// another.
#[derive(Debug)]
pub(super) struct Current {
    in_force: ArcSwap<InForce>,
    /// Held by whoever swaps, from reading the old terms on.
    swapping: Mutex<()>,
    changed: Notify,
}

impl InForce {
    pub(super) fn access_log(&self) -> AccessLog {
        self.terms.access_log
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.terms.trust
    }

    pub(super) fn accepting(&self) -> &Accepting {
        &self.accepting
    }
}

impl Current {
    pub(super) fn new(terms: Terms) -> Result<Self, TlsError> {
        let tls = configured(&terms)?;
        let in_force = ArcSwap::from_pointee(in_force(terms, tls));
        Ok(Self { in_force, swapping: Mutex::default(), changed: Notify::new() })
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
        let before = self.in_force.load();
        let mut terms = before.terms.clone();
        change(&mut terms);
        let same = match (&before.terms.tls, &terms.tls) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            _ => false,
        };
        let tls = if same { before.accepting.tls.clone() } else { configured(&terms)? };
        self.in_force.store(Arc::new(in_force(terms, tls)));
        self.changed.notify_waiters();
        Ok(())
    }
}

fn configured(terms: &Terms) -> Result<Option<Arc<rustls::ServerConfig>>, TlsError> {
    Ok(terms.tls.as_deref().map(tls::egress_config).transpose()?.map(Arc::new))
}

fn in_force(terms: Terms, tls: Option<Arc<rustls::ServerConfig>>) -> InForce {
    let accepting = Accepting { tls, settings: Arc::new(terms.settings.clone()) };
    InForce { router: Router::new(terms.router.clone()), accepting, terms }
}
