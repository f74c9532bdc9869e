//! Where a responder keeps its state when its file does not say: the first natural place that there is.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tracing::{debug, info, warn};

use crate::config::ResponderConfig;

/// Where a system keeps what services must not lose.
const SYSTEM: &str = "/var/lib/adit";

/// A place and who names it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    by: &'static str,
}

/// The folder, made if missing. `None`: there is no place for it, which keeps nobody from starting.
pub(super) fn state_dir(settings: &ResponderConfig) -> Option<PathBuf> {
    if let Some(folder) = &settings.state_dir {
        return make(folder).map(|()| folder.clone()).inspect_err(|error| without(folder, error)).ok();
    }
    // Who gets another port at each start is not known to anybody after it.
    let listens = settings.quic.or(settings.tcp).filter(|address| address.port() != 0)?;
    for Place { folder, by } in places(listens, |name| std::env::var_os(name), Path::new(SYSTEM)) {
        match make(&folder) {
            Ok(()) => {
                info!(folder = %folder.display(), by, "state is kept here; responder.state_dir chooses another place");
                return Some(folder);
            }
            Err(error) => debug!(%error, folder = %folder.display(), by, "no place for state"),
        }
    }
    info!("no place for state: after a restart tunnels come back more slowly; responder.state_dir names one");
    None
}

/// Says what it costs to be without.
pub(super) fn without(folder: &Path, error: &io::Error) {
    warn!(folder = %folder.display(), %error, "the state folder cannot be used: after a restart, tunnels come back more slowly");
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// In the order in which they are tried. Responders on one machine listen at different addresses, and so do not share.
fn places(listens: SocketAddr, variable: impl Fn(&str) -> Option<OsString>, system: &Path) -> Vec<Place> {
    let own: String = listens.to_string().chars().filter(|c| !"[]".contains(*c)).collect();
    let own = format!("responder-{}", own.replace(':', "_"));
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_unit = variable("STATE_DIRECTORY").and_then(|list| {
        // systemd writes one or several, with colons between them.
        let first = PathBuf::from(list.to_str()?.split(':').next()?);
        first.is_absolute().then_some(first)
    });
    let of_user = match absolute("XDG_STATE_HOME") {
        Some(home) => Some((home.join("adit"), "$XDG_STATE_HOME")),
        None => absolute("HOME").map(|home| (home.join(".local/state/adit"), "$HOME")),
    };
    let unit = of_unit.map(|folder| (folder, "$STATE_DIRECTORY"));
    let system = system.is_dir().then(|| (system.to_owned(), SYSTEM));
    [unit, system, of_user].into_iter().flatten().map(|(folder, by)| Place { folder: folder.join(&own), by }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], system: &Path) -> Vec<(String, &'static str)> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let places = places("[::]:7843".parse().unwrap(), variable, system);
        places.into_iter().map(|Place { folder, by }| (folder.display().to_string(), by)).collect()
    }

    #[test]
    fn the_unit_comes_first_then_the_system_then_the_user() {
        let system = tempfile::tempdir().unwrap();
        let variables = [("STATE_DIRECTORY", "/run/a:/run/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/home/u")];
        let own = "responder-___7843";
        let expected = [
            (format!("/run/a/{own}"), "$STATE_DIRECTORY"),
            (format!("{}/{own}", system.path().display()), SYSTEM),
            (format!("/x/adit/{own}"), "$XDG_STATE_HOME"),
        ];
        assert_eq!(found(&variables, system.path()), expected);
        let missing = system.path().join("missing");
        assert_eq!(found(&[("HOME", "/home/u")], &missing), [(format!("/home/u/.local/state/adit/{own}"), "$HOME")]);
        assert_eq!(found(&[("HOME", "relative"), ("STATE_DIRECTORY", "")], &missing), []);
    }
}
