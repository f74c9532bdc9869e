//! Two VXLAN devices of Linux, as the example sets them up.

use std::path::Path;
use std::process::Command;

use crate::run::{Run, may_unshare, not_on_path};
use crate::support::process::Adit;

/// Seconds after which the script is asked to stop, whereupon it takes its namespaces away, and those after which it is made to.
const LIMITS: [&str; 2] = ["--kill-after=20", "100"];
/// The names of what the script made are of its own; its addresses and ports are of a network of its own.
const APART: &str = "ip link set lo up && exec \"$@\"";

pub(crate) fn missing() -> Vec<&'static str> {
    let mut missing = not_on_path(&["ip", "ethtool", "ping", "python3", "timeout", "unshare"]);
    if missing.is_empty() && !may_unshare("--net") {
        missing.push("root, for namespaces");
    }
    missing
}

pub(crate) async fn run(run: Run) {
    run.begin("examples/udp/vxlan.sh: ping each way, 20 MB by TCP inside");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/udp/vxlan.sh");
    let mut command = Command::new("timeout");
    command.args(LIMITS).args(["unshare", "--net", "sh", "-c", APART, "sh", "sh"]).arg(script);
    command.arg(run.transport.label()).env("ADIT", Adit::program());
    let (said, _) = run.command("vxlan.sh", command).await;
    run.done(said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; "));
}
