//! An emulated WAN between two network namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;

/// The emulator, if there is one that can be used.
pub(crate) fn program() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/wan/wan");
    let path = std::env::var_os("ADIT_WAN").map_or_else(beside, PathBuf::from);
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    (root && path.is_file()).then_some(path)
}

/// A link that is there while this lives, with everything that was started in it.
pub(crate) struct Link {
    wan: PathBuf,
    name: String,
}

impl Link {
    pub(crate) fn up(wan: &Path, options: &Options, run: u64) -> Self {
        let name = format!("adit{}-{}", std::process::id(), rand::random::<u16>());
        let link = Self { wan: wan.to_owned(), name };
        let seed = (run + 1).to_string();
        let settings = ["--rtt", &options.rtt, "--loss", &options.loss, "--cc", &options.cc, "--seed", &seed];
        let up = Command::new(wan).arg("up").arg(&link.name).args(settings).output().unwrap();
        assert!(up.status.success(), "{up:?}");
        link
    }

    /// A command that runs in the namespace of the site (`a`) or of the cloud (`b`).
    pub(crate) fn command(&self, side: &str, program: &Path) -> Command {
        let mut command = Command::new(&self.wan);
        command.args(["-n", &self.name, side]).arg(program);
        command
    }

    /// From now on UDP is lost, for this long.
    pub(crate) fn block_udp(&self, time: &str) {
        let blocked = Command::new(&self.wan).args(["-n", &self.name, "block", "udp", time]).output().unwrap();
        assert!(blocked.status.success(), "{blocked:?}");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = Command::new(&self.wan).args(["down", &self.name]).output();
    }
}
