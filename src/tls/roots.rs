//! The roots of a trust, each within its own dates.
//!
//! Chain verification takes a root for ever: RFC 5280 section 6.1.1 (d) knows of no dates there. Who lets a CA end
//! expects that it counts no longer, so only roots that are valid now are asked.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use crate::tls::certificate::{Summary, subject, subject_and_issuer};
use crate::tls::lists;
use crate::tls::reject::moment;
use crate::tls::{Fault, Peer, Rejection, TlsError, Trust};

/// Makes a verifier of what a trust says.
type Build<V> = fn(&Trust) -> Result<Arc<V>, TlsError>;

/// The verifiers of one trust, which differ by the roots they take.
#[derive(Debug)]
pub(super) struct Roots<V: ?Sized> {
    trust: Trust,
    summaries: Vec<Summary>,
    build: Build<V>,
    all: Arc<V>,
    /// Where there are revocation lists, the verifier of each root, which knows the lists of that root: those of another one
    /// may bear its name.
    each: Vec<Arc<V>>,
    /// Of the roots that are not all: which, and their verifier. One set, since it changes when a root begins or ends.
    some: Mutex<Option<(Vec<bool>, Arc<V>)>>,
}

impl<V: ?Sized> Roots<V> {
    /// `None` without roots.
    ///
    /// # Errors
    /// [`TlsError`] if a root cannot be read, or `build` fails.
    pub(super) fn new(trust: &Trust, build: Build<V>) -> Result<Option<Self>, TlsError> {
        if trust.roots.is_empty() {
            return Ok(None);
        }
        let summaries = trust.roots.iter().map(Summary::of).collect::<Result<_, _>>()?;
        let listed: &[_] = if trust.crls.is_empty() { &[] } else { &trust.roots };
        let each = listed.iter().map(|root| build(&lists::of_root(trust, root))).collect::<Result<_, _>>()?;
        Ok(Some(Self { trust: trust.clone(), summaries, build, all: build(trust)?, each, some: Mutex::new(None) }))
    }

    /// The verifier of every root, whatever its dates.
    pub(super) fn all(&self) -> &Arc<V> {
        &self.all
    }

    /// Runs `verify` with the roots that are valid `now`. A chain that only a root outside of its dates vouches for is
    /// told so; `chain` is what `peer` showed, its own certificate first.
    ///
    /// # Errors
    /// What `verify` says; [`Fault::RootExpired`] or [`Fault::RootNotYetValid`] inside of a `rustls::Error`.
    pub(super) fn verify(
        &self,
        (peer, chain): (Peer, &[&CertificateDer<'_>]),
        now: UnixTime,
        verify: impl Fn(&V) -> Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        let now = moment(now);
        let valid: Vec<bool> = self.summaries.iter().map(|root| is_valid(root, now)).collect();
        let Err(error) = self.judge(&valid, &verify) else { return Ok(()) };
        if valid.iter().all(|valid| *valid) {
            return Err(error);
        }
        // Were the dates of the roots all that is wrong?
        self.judge(&vec![true; valid.len()], &verify)?;
        Err(self.ended(peer, chain, &valid, now).map_or(error, rustls::Error::from))
    }

    /// Runs `verify` with these roots.
    fn judge(&self, roots: &[bool], verify: impl Fn(&V) -> Result<(), rustls::Error>) -> Result<(), rustls::Error> {
        let unknown = rustls::Error::from(rustls::CertificateError::UnknownIssuer);
        if self.each.is_empty() {
            return match self.of(roots) {
                Ok(Some(verifier)) => verify(&verifier),
                Ok(None) => Err(unknown),
                Err(error) => Err(rustls::Error::General(error.to_string())),
            };
        }
        let mut told = unknown;
        for verifier in self.each.iter().zip(roots).filter_map(|(verifier, is_asked)| is_asked.then_some(verifier)) {
            match verify(verifier) {
                Ok(()) => return Ok(()),
                // A root that has not issued it, were it for its name, says nothing of it.
                Err(error) if is_foreign(&told) => told = error,
                Err(_) => {}
            }
        }
        Err(told)
    }

    /// The verifier of these roots; `None` of none.
    fn of(&self, valid: &[bool]) -> Result<Option<Arc<V>>, TlsError> {
        if valid.iter().all(|valid| *valid) {
            return Ok(Some(Arc::clone(&self.all)));
        }
        let mut some = self.some.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, verifier)) = &*some
            && of == valid
        {
            return Ok(Some(Arc::clone(verifier)));
        }
        let roots = self.trust.roots.iter().zip(valid).filter(|(_, valid)| **valid).map(|(root, _)| root.clone());
        let trust = Trust { roots: roots.collect(), ..self.trust.clone() };
        if trust.roots.is_empty() {
            return Ok(None);
        }
        let verifier = (self.build)(&trust)?;
        *some = Some((valid.to_vec(), Arc::clone(&verifier)));
        Ok(Some(verifier))
    }

    /// What is said of a chain for which one of the roots that are not valid vouched.
    fn ended(
        &self,
        peer: Peer,
        chain: &[&CertificateDer<'_>],
        valid: &[bool],
        now: OffsetDateTime,
    ) -> Option<Rejection> {
        let issuers: Vec<_> = chain.iter().filter_map(|own| Some(subject_and_issuer(own).ok()?.1)).collect();
        let vouches =
            |root: &CertificateDer<'_>| subject_and_issuer(root).is_ok_and(|(subject, _)| issuers.contains(&subject));
        let mut outside = self.trust.roots.iter().zip(&self.summaries).zip(valid).filter(|(_, valid)| !**valid);
        let ((_, root), _) = outside.find(|((root, _), _)| vouches(root))?;
        let root = Box::new(root.clone());
        let fault =
            if root.not_after < now { Fault::RootExpired { root, now } } else { Fault::RootNotYetValid { root, now } };
        Some(Rejection { peer, certificate: chain.first().and_then(|own| Summary::of(own).ok()), fault })
    }
}

/// Whether it was issued by somebody else.
const fn is_foreign(error: &rustls::Error) -> bool {
    use rustls::CertificateError as E;
    matches!(error, rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature))
}

fn is_valid(root: &Summary, now: OffsetDateTime) -> bool {
    root.not_before <= now && now <= root.not_after
}

/// The roots as rustls takes them.
///
/// # Errors
/// [`TlsError::Root`] for one that it does not take.
pub(super) fn store(trust: &Trust) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in &trust.roots {
        let unusable = |error: rustls::Error| TlsError::Root {
            name: subject(root).unwrap_or_else(|_| "(unreadable)".to_owned()),
            reason: error.to_string(),
        };
        store.add(root.clone()).map_err(unusable)?;
    }
    Ok(Arc::new(store))
}
