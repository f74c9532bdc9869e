//! The `tls` sections: which files hold certificates, keys and trusted roots.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::config::reader::{At, Section};
use crate::config::show;
use crate::id::SpkiPin;
use crate::tls::{
    self, ClientCertificates, Credentials, EgressTls, InitiatorTls, TargetTls, TlsError, Trust, load_crls, load_roots,
    without_list,
};

/// `tls` of a listener: what it shows and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerTls {
    /// `cert`: PEM file with the certificate and its chain.
    pub cert: PathBuf,
    /// `key`: PEM file with the private key of `cert`.
    pub key: PathBuf,
    /// `client_ca`: PEM file with the roots that client certificates must chain to; none are asked for when absent.
    pub client_ca: Option<PathBuf>,
    /// `crl`: PEM files with revocation lists for client certificates; one file or a list. Needs `client_ca`.
    pub crls: Vec<PathBuf>,
}

/// `initiator.tls`: what proves who we are, and whom we accept as responder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct DialerTls {
    /// `cert` and `key`: PEM files; both or neither.
    pub credentials: Option<KeyPairFiles>,
    /// `ca`: PEM file with the roots that the responder's certificate must chain to; without it, `pins` decide alone.
    pub ca: Option<PathBuf>,
    /// `pins`: when not empty, the responder's key must be one of these, beside what `ca` asks.
    #[serde(serialize_with = "show::list")]
    pub pins: Vec<SpkiPin>,
    /// `crl`: PEM files with revocation lists for certificates of responders; one file or a list. Needs `ca`.
    pub crls: Vec<PathBuf>,
    /// `server_name`: the name that the responder's certificate must have; the host of the address when absent.
    pub server_name: Option<String>,
}

/// `tls` of a service: which target is genuine, and what it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct TargetTlsConfig {
    /// `cert` and `key`: PEM files; both or neither.
    pub credentials: Option<KeyPairFiles>,
    /// `ca`: PEM file with the roots that the target's certificate must chain to; without it, `pins` decide alone.
    pub ca: Option<PathBuf>,
    /// `pins`: when not empty, the target's key must be one of these, beside what `ca` asks.
    #[serde(serialize_with = "show::list")]
    pub pins: Vec<SpkiPin>,
    /// `crl`: PEM files with revocation lists for certificates of the target; one file or a list. Needs `ca`.
    pub crls: Vec<PathBuf>,
    /// `server_name`: the name that is asked for (SNI) and must be in the target's certificate; the host of the target when
    /// absent.
    pub server_name: Option<String>,
    /// `insecure_accept_any`: takes whatever certificate the target shows, so that somebody on the way can read and change
    /// everything. Default false.
    pub insecure_accept_any: bool,
}

/// A certificate file and its key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyPairFiles {
    /// PEM file with the certificate and its chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

impl KeyPairFiles {
    /// Both files.
    pub fn new(cert: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self { cert: cert.as_ref().to_owned(), key: key.as_ref().to_owned() }
    }
}

impl ListenerTls {
    /// Shows this certificate, and asks nobody for one.
    pub fn new(cert: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let KeyPairFiles { cert, key } = KeyPairFiles::new(cert, key);
        Self { cert, key, client_ca: None, crls: Vec::new() }
    }

    /// Loads the certificate and its key.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn credentials(&self) -> Result<Credentials, TlsError> {
        Credentials::load(&self.cert, &self.key)
    }

    /// Loads the roots and revocation lists for client certificates; no roots when there is no `client_ca`.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn trust(&self) -> Result<Trust, TlsError> {
        trust(self.client_ca.as_deref(), &[], &self.crls)
    }

    /// Loads what an egress listener shows, and whom it asks for a certificate: everybody, or nobody without
    /// `client_ca`.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn egress(&self) -> Result<EgressTls, TlsError> {
        let clients = match self.client_ca {
            Some(_) => ClientCertificates::Required(self.trust()?),
            None => ClientCertificates::NotAsked,
        };
        Ok(EgressTls { credentials: self.credentials()?, clients })
    }
}

impl DialerTls {
    /// Loads what this end shows, and which responders are genuine.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn initiator(&self) -> Result<InitiatorTls, TlsError> {
        let load = |files: &KeyPairFiles| Credentials::load(&files.cert, &files.key);
        let responder = trust(self.ca.as_deref(), &self.pins, &self.crls)?;
        Ok(InitiatorTls { credentials: self.credentials.as_ref().map(load).transpose()?, responder })
    }
}

impl TargetTlsConfig {
    /// Loads what the target is shown, and which one is genuine.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn target(&self) -> Result<TargetTls, TlsError> {
        let load = |files: &KeyPairFiles| Credentials::load(&files.cert, &files.key);
        let trust = trust(self.ca.as_deref(), &self.pins, &self.crls)?;
        Ok(TargetTls {
            credentials: self.credentials.as_ref().map(load).transpose()?,
            trust: Some(trust).filter(|_| !self.insecure_accept_any),
            server_name: self.server_name.clone(),
        })
    }
}

/// Loads whom to trust: roots, and lists of what they signed that is no longer valid.
pub(super) fn trust(roots: Option<&Path>, pins: &[SpkiPin], crls: &[PathBuf]) -> Result<Trust, TlsError> {
    let roots = roots.map(load_roots).transpose()?.unwrap_or_default();
    let lists = crls.iter().map(|list| load_crls(list)).collect::<Result<Vec<_>, _>>()?;
    Ok(Trust { roots, pins: pins.to_vec(), crls: lists.concat() })
}

/// The `tls` section of a listener.
pub(super) fn listener_tls(at: At<'_>) -> Option<ListenerTls> {
    at.section(|section| {
        let cert = section.required("cert", "a PEM file with a certificate chain", |at| at.file());
        let key = section.required("key", "a PEM file with the certificate's private key", |at| at.file());
        let client_ca = section.optional("client_ca", roots);
        let crls = revocation_lists(section, "client_ca");
        let KeyPairFiles { cert, key } = matching_pair(section, cert, key)?;
        if client_ca.is_none() && section.has("client_ca") {
            // It cannot be read, which is said; nobody is to say that it is missing, too.
            return None;
        }
        if let Some(ca) = &client_ca {
            lists_of_all(section, ("client_ca", ca), &crls);
        }
        Some(ListenerTls { cert, key, client_ca, crls })
    })
}

/// A file with root certificates.
pub(super) fn roots(at: At<'_>) -> Option<PathBuf> {
    let path = at.file()?;
    at.verify(|| load_roots(&path));
    Some(path)
}

/// `crl`; `roots` is the key of what issued what they revoke.
fn revocation_lists(section: &mut Section<'_>, roots: &str) -> Vec<PathBuf> {
    let has_roots = section.has(roots);
    section.or("crl", Vec::new(), |at| {
        if !has_roots {
            at.wrong(format!("has nothing to revoke without {roots}; expected {roots} beside it"));
        }
        at.one_or_more(|at| {
            let path = at.file()?;
            at.verify(|| load_crls(&path));
            Some(path)
        })
    })
}

/// `crl` of a section whose roots, which were read already, are in `ca`.
pub(super) fn lists_for(section: &mut Section<'_>, ca: Option<&Path>) -> Vec<PathBuf> {
    let crls = revocation_lists(section, "ca");
    if let Some(ca) = ca {
        lists_of_all(section, ("ca", ca), &crls);
    }
    crls
}

/// Says whose list is missing in `crl`: a CA without one, beside others with one, has all of its certificates refused, since a
/// list that was forgotten must not let in whom it revokes.
fn lists_of_all(section: &mut Section<'_>, (key, ca): (&str, &Path), crls: &[PathBuf]) {
    let Some(at) = section.find("crl") else { return };
    // A file that cannot be read is said to be so elsewhere.
    let load = || -> Result<Trust, TlsError> {
        let lists = crls.iter().map(|list| load_crls(list)).collect::<Result<Vec<_>, _>>()?;
        Ok(Trust { roots: load_roots(ca)?, crls: lists.concat(), ..Trust::default() })
    };
    at.verify(|| match load().map(|trust| without_list(&trust, SystemTime::now())).unwrap_or_default().first() {
        None => Ok(()),
        Some(ca) => Err(format!(
            "has no list of the CA {ca}, which is in {key}, so that none of its certificates would be accepted; expected a \
             list of each CA there (`adit pki revoke` without a certificate makes one that revokes nobody)"
        )),
    });
}

/// Both files, if they belong together.
pub(super) fn matching_pair(
    section: &mut Section<'_>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Option<KeyPairFiles> {
    let files = KeyPairFiles { cert: cert?, key: key? };
    section.find("cert")?.verify(|| Credentials::load(&files.cert, &files.key));
    Some(files)
}

/// `initiator.tls`.
pub(super) fn dialer_tls(at: At<'_>) -> Option<DialerTls> {
    at.section(|section| {
        let credentials = key_pair(section, "cert", "key");
        let ca = section.optional("ca", roots);
        let pins = section.or("pins", Vec::new(), |at| at.one_or_more(|at| at.parsed()));
        let crls = lists_for(section, ca.as_deref());
        if !section.has("ca") && !section.has("pins") {
            section.missing("ca", "a PEM file with the responder's root certificates, or pins of its key");
        }
        let server_name = section.optional("server_name", |at| server_name(&at));
        Some(DialerTls { credentials, ca, pins, crls, server_name })
    })
}

/// `tls` of a service.
pub(super) fn target_tls(at: At<'_>) -> Option<TargetTlsConfig> {
    at.section(|section| {
        let credentials = key_pair(section, "cert", "key");
        let ca = section.optional("ca", roots);
        let pins = section.or("pins", Vec::new(), |at| at.one_or_more(|at| at.parsed()));
        let crls = lists_for(section, ca.as_deref());
        let server_name = section.optional("server_name", |at| server_name(&at));
        let insecure_accept_any = section.or("insecure_accept_any", false, |at| at.boolean());
        let verifies = section.has("ca") || section.has("pins");
        if insecure_accept_any && verifies {
            section
                .at()
                .wrong("asks for a certificate and takes any; expected ca or pins, or insecure_accept_any alone");
        }
        if !insecure_accept_any && !verifies {
            section.missing("ca", "a PEM file with the root certificates of the target, or pins of its key");
        }
        Some(TargetTlsConfig { credentials, ca, pins, crls, server_name, insecure_accept_any })
    })
}

/// Both files of a pair whose keys have these names, or neither.
pub(super) fn key_pair(section: &mut Section<'_>, cert: &'static str, key: &'static str) -> Option<KeyPairFiles> {
    match (section.find(cert), section.find(key)) {
        (None, None) => None,
        (Some(at), Some(other)) => {
            let files = KeyPairFiles { cert: at.file()?, key: other.file()? };
            at.verify(|| Credentials::load(&files.cert, &files.key));
            Some(files)
        }
        (Some(alone), None) => {
            alone.wrong(format!("stands alone; expected {key} beside it"));
            None
        }
        (None, Some(alone)) => {
            alone.wrong(format!("stands alone; expected {cert} beside it"));
            None
        }
    }
}

pub(super) fn server_name(at: &At<'_>) -> Option<String> {
    at.understood("a DNS name or an IP address", |text| tls::server_name(text).is_ok().then(|| text.to_owned()))
}
