//! Key pins in both directions, beside the CA: a certificate of the right CA with the right name and another key is
//! refused, whichever side shows it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use adit::app::App;
use adit::config::{self, Given};
use adit::initiator::SlotStatus;
use adit::lifecycle::Drain;
use adit::policy::San;
use adit::tls::pki::{Authority, CA_LIFETIME, LEAF_LIFETIME, Validity};
use adit::tls::spki_pin;
use anyhow::{Context as _, ensure};
use tempfile::TempDir;

const NAME: &str = "spiffe://adit.internal/tenant/default/cluster/stores-eu/node/edge-17";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let site = Site::create()?;

    println!("1. Each side shows the key that the other one has pinned");
    let slot = site.meet("node", &site.responder_pin).await?;
    ensure!(slot.tunnel.is_some(), "no tunnel: {slot:?}");
    println!("   tunnel to {}", slot.address);

    println!("2. Another key of the same node, its certificate by the same CA: somebody reached the CA");
    let slot = site.meet("stolen", &site.responder_pin).await?;
    ensure!(slot.tunnel.is_none(), "a node with a key that is not pinned was admitted");
    let reason = slot.reason.unwrap_or_default();
    println!("   {reason}");
    ensure!(reason.contains("403") && reason.contains("is not pinned"), "refused for another reason");

    println!("3. The initiator has pinned another responder");
    let slot = site.meet("node", &site.other_pin).await?;
    ensure!(slot.tunnel.is_none(), "a responder with a key that is not pinned was accepted");
    let reason = slot.reason.unwrap_or_default();
    println!("   {reason}");
    ensure!(reason.contains("pin"), "not accepted for another reason");
    Ok(())
}

/// The certificates of this example, all by one CA, and their pins.
struct Site {
    folder: TempDir,
    node_pin: String,
    responder_pin: String,
    other_pin: String,
}

impl Site {
    fn create() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let valid = |lifetime| Validity { from: SystemTime::now(), lifetime };
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create("pinning CA", valid(CA_LIFETIME))?;
        authority.save(&path("ca.pem"), &path("ca.key"))?;
        let responder = authority.responder(&["127.0.0.1".to_owned()], valid(LEAF_LIFETIME))?;
        responder.save(&path("responder.pem"), &path("responder.key"))?;
        let [node, stolen] =
            ["node", "stolen"].map(|_| authority.node(&[San::Uri(NAME.to_owned())], valid(LEAF_LIFETIME)));
        let (node, stolen) = (node?, stolen?);
        node.save(&path("node.pem"), &path("node.key"))?;
        stolen.save(&path("stolen.pem"), &path("stolen.key"))?;
        Ok(Self {
            node_pin: spki_pin(node.certificate())?.to_string(),
            responder_pin: spki_pin(responder.certificate())?.to_string(),
            other_pin: spki_pin(stolen.certificate())?.to_string(),
            folder,
        })
    }

    /// Runs both roles until the initiator has a tunnel or a reason why not. `key` is what the node shows,
    /// `responder_pin` what it asks for.
    async fn meet(&self, key: &str, responder_pin: &str) -> anyhow::Result<SlotStatus> {
        let cloud = self.app(include_str!("cloud.yaml"), &[("NODE_PIN", self.node_pin.clone())]).await?;
        let responder = cloud.tunnel_address().context("the responder has no address")?;
        let values = [("RESPONDER", responder.to_string()), ("RESPONDER_PIN", responder_pin.to_owned())];
        let edge = include_str!("edge.yaml").replace("node.pem", &format!("{key}.pem"));
        let edge = self.app(&edge.replace("node.key", &format!("{key}.key")), &values).await?;
        let status = edge.initiator_status().context("the initiator has no status")?;

        let drain = Drain::new();
        let running = [cloud, edge].map(|app| tokio::spawn(app.run(drain.clone())));
        let slot = status.first_outcome().await;
        drain.begin(Duration::from_secs(5));
        for app in running {
            app.await??;
        }
        Ok(slot)
    }

    async fn app(&self, text: &str, values: &[(&str, String)]) -> anyhow::Result<App> {
        let path: PathBuf = self.folder.path().join(Path::new("adit.yaml"));
        Ok(App::build(config::check(text, &path, &Given(values))?).await?)
    }
}
