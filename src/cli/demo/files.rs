//! The demo's folder: certificates and two configuration files, as an operator would have them.

use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit::config::AdminAddress;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use anyhow::Context as _;

/// The node of the demo.
pub(super) const NODE: &str = "edge-17";
/// The responder's file.
pub(super) const CLOUD: &str = "cloud.yaml";

const EDGE: &str = "edge.yaml";
const CLUSTER: &str = "stores-eu";
const TENANT: &str = "acme";
const ADMIN_SOCKET: &str = "cloud.sock";

/// A private folder, removed at the end.
pub(super) struct Files {
    folder: PathBuf,
    /// The name in the node's certificate.
    pub(super) san: String,
}

impl Files {
    /// Makes the folder, a CA, and a certificate for each side.
    pub(super) fn create() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        let folder = parent.join(format!("adit-demo-{:016x}", rand::random::<u64>()));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| {
            format!(
                "cannot make a folder for certificates and files in {}; TMPDIR names another place",
                parent.display()
            )
        })?;
        let files = Self { folder, san: identity(TENANT, CLUSTER, NODE) };
        let valid = |lifetime| Validity { from: SystemTime::now(), lifetime };
        let authority = Authority::create("adit demo CA", valid(CA_LIFETIME))?;
        authority.save(&files.path("ca.pem"), &files.path("ca.key"))?;
        let responder = authority.responder(&["127.0.0.1".to_owned()], valid(LEAF_LIFETIME))?;
        responder.save(&files.path("cloud.pem"), &files.path("cloud.key"))?;
        let node = authority.node(&[San::Uri(files.san.clone())], valid(LEAF_LIFETIME))?;
        node.save(&files.path("edge.pem"), &files.path("edge.key"))?;
        Ok(files)
    }

    /// Where everything is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The responder's admin socket.
    pub(super) fn admin(&self) -> AdminAddress {
        AdminAddress::Unix(self.path(ADMIN_SOCKET))
    }

    /// Writes the responder's file.
    pub(super) fn cloud(&self) -> anyhow::Result<PathBuf> {
        let identity = identity("{tenant}", "{cluster}", "{node}");
        self.write(
            CLOUD,
            &format!(
                "responder:\n  \
                   listen: {{ quic: \"127.0.0.1:0\" }}\n  \
                   tls: {{ cert: cloud.pem, key: cloud.key, client_ca: ca.pem }}\n  \
                   identity: \"{identity}\"\n\
                 egress:\n  \
                   - http: \"127.0.0.1:0\"\n    \
                     host_id: \"%REQ(x-node-id?x-cluster-id)%\"\n    \
                     tenant: {TENANT}\n\
                 admin: \"unix:{ADMIN_SOCKET}\"\n"
            ),
        )
    }

    /// Writes the initiator's file.
    pub(super) fn edge(&self, responder: SocketAddr, target: SocketAddr) -> anyhow::Result<PathBuf> {
        self.write(
            EDGE,
            &format!(
                "initiator:\n  \
                   node: {NODE}\n  cluster: {CLUSTER}\n  tenant: {TENANT}\n  \
                   tunnels: [{{ to: \"{responder}\" }}]\n  \
                   tls: {{ cert: edge.pem, key: edge.key, ca: ca.pem }}\n\
                 services:\n  \
                   - {{ name: hello, match: {{ prefix: / }}, target: \"http://{target}\" }}\n"
            ),
        )
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn identity(tenant: &str, cluster: &str, node: &str) -> String {
    format!("spiffe://demo.internal/tenant/{tenant}/cluster/{cluster}/node/{node}")
}

#[cfg(test)]
mod tests {
    use adit::config::{self, Process};

    use super::*;

    #[test]
    fn both_files_pass_the_check_and_the_folder_goes_away() {
        let files = Files::create().unwrap();
        let folder = files.folder().to_owned();
        let (responder, target) = ("127.0.0.1:7843".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        for file in [files.cloud().unwrap(), files.edge(responder, target).unwrap()] {
            config::load(&file, &Process).unwrap();
        }
        drop(files);
        assert!(!folder.exists());
    }
}
