//! What goes wrong with etcd, and what to change.

use std::io;
use std::time::Duration;

use tonic::Status;

use super::settings::Endpoint;
use crate::tls::TlsError;

/// Why etcd did not answer, or not as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// No connection to this member, or no TLS on it.
    #[error("cannot connect to etcd at {endpoint}: {source}")]
    Connect {
        /// Which one.
        endpoint: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// The member does not speak HTTP/2.
    #[error("etcd at {endpoint} does not speak HTTP/2: {source}")]
    Http {
        /// Which one.
        endpoint: Endpoint,
        /// Why.
        source: hyper::Error,
    },
    /// It took too long.
    #[error("etcd did not answer to {call} within {timeout:?}")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It says no.
    #[error("etcd answers to {call}: {} ({:?})", status.message(), status.code())]
    Status {
        /// What was asked.
        call: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
    /// An answer without a part that it must have.
    #[error("etcd's answer to {call} has no {missing}")]
    Incomplete {
        /// What was asked.
        call: &'static str,
        /// What it lacks.
        missing: &'static str,
    },
    /// The watch has ended.
    #[error("etcd ended the watch: {0}")]
    WatchEnded(String),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl EtcdError {
    pub(super) fn status(call: &'static str) -> impl FnOnce(Status) -> Self {
        move |status| Self::Status { call, status: Box::new(status) }
    }
}
