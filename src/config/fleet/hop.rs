//! `fleet.hop`: how a responder asks its siblings, and is asked.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::listeners::Protocol;
use crate::config::reader::{At, Section};
use crate::config::show;
use crate::config::tls::{KeyPairFiles, lists_for, matching_pair, roots, trust};
use crate::fleet::hop::{HopSettings, SiblingIdentity};
use crate::id::ResponderId;
use crate::tls::{Credentials, SiblingTls, TlsError, peer_identity};

/// `fleet.hop`: how a responder asks its siblings, and is asked. All but `tls` is read at the start only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HopConfig {
    /// `listen`: the UDP address where siblings come in.
    pub listen: SocketAddr,
    /// `identity`: which name in a certificate proves that its owner is a certain responder of the fleet.
    #[serde(serialize_with = "show::text")]
    pub identity: SiblingIdentity,
    /// `tls`: what siblings are shown, and which ones are genuine.
    pub tls: HopTls,
}

/// `fleet.hop.tls`: what siblings are shown, and which ones are genuine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HopTls {
    /// `cert` and `key`: PEM files; what siblings are shown, whoever of the two has dialled.
    pub credentials: KeyPairFiles,
    /// `ca`: PEM file with the roots that the certificates of siblings must chain to.
    pub ca: PathBuf,
    /// `crl`: PEM files with revocation lists for the certificates of siblings; one file or a list.
    pub crls: Vec<PathBuf>,
}

impl HopConfig {
    /// What the responder of this name goes by; loads the files. `epoch` rises with each start of it.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn settings(&self, id: ResponderId, epoch: u64) -> Result<HopSettings, TlsError> {
        let KeyPairFiles { cert, key } = &self.tls.credentials;
        let siblings = trust(Some(&self.tls.ca), &[], &self.tls.crls)?;
        let tls = SiblingTls { credentials: Credentials::load(cert, key)?, siblings };
        Ok(HopSettings::new(id, epoch, tls, self.identity.clone()))
    }
}

/// Reads the section. `id` is the name of the responder.
pub(super) fn hop(at: At<'_>, id: Option<&ResponderId>) -> Option<HopConfig> {
    at.section(|section| {
        let listen =
            section.required("listen", "a UDP address such as 10.0.0.7:7844", |at| at.listener(&[Protocol::Udp]));
        let expected = "the name in a responder's certificate such as spiffe://example.org/responder/{responder}";
        let identity = section.required("identity", expected, |at| identity(&at, id));
        let tls = section.required("tls", "a section with cert, key and ca", tls);
        let config = HopConfig { listen: listen?, identity: identity?, tls: tls? };
        check_own_name(section, &config, id?);
        Some(config)
    })
}

fn identity(at: &At<'_>, id: Option<&ResponderId>) -> Option<SiblingIdentity> {
    let identity = at.checked(SiblingIdentity::parse)?;
    if let Some(id) = id.filter(|id| identity.name(id).is_none()) {
        at.wrong(format!("is a DNS name and cannot hold the name of this responder ({id}); expected a URI"));
        return None;
    }
    Some(identity)
}

fn tls(at: At<'_>) -> Option<HopTls> {
    at.section(|section| {
        let cert = section.required("cert", "a PEM file with the certificate that siblings are shown", |at| at.file());
        let key = section.required("key", "a PEM file with the certificate's private key", |at| at.file());
        let ca = section.required("ca", "a PEM file with the root certificates of the siblings", roots);
        let crls = lists_for(section, ca.as_deref());
        Some(HopTls { credentials: matching_pair(section, cert, key)?, ca: ca?, crls })
    })
}

/// Siblings refuse a certificate that has not the name of its responder: better said here than by them.
fn check_own_name(section: &mut Section<'_>, config: &HopConfig, id: &ResponderId) {
    let KeyPairFiles { cert, key } = &config.tls.credentials;
    let Some(at) = section.find("tls") else { return };
    at.verify(|| {
        // What cannot be loaded was said already.
        let Ok(credentials) = Credentials::load(cert, key) else { return Ok(()) };
        let shown = peer_identity(credentials.chain()).map_err(|error| error.to_string())?;
        match config.identity.proves(&shown, id) {
            true => Ok(()),
            false => {
                let name = config.identity.name(id).unwrap_or_default();
                Err(format!("has a certificate without the name {name:?}, so that siblings refuse it"))
            }
        }
    });
}
