//! `adit reload`: a running adit reads its file again.

use std::process::ExitCode;

use adit::admin::client::{RELOAD_TIMEOUT, request_within};
use adit::config::AdminAddress;
use adit::telemetry::log;
use anyhow::bail;
use clap::Args;
use http::{Method, StatusCode};

use super::{MISUSED, say};

#[derive(Debug, Args)]
#[command(after_help = "Prints what changed. Exit codes: 0 the file is in force, 1 nobody could be asked, \
                        2 the file has mistakes or cannot be put in force: nothing has changed.")]
pub(super) struct ReloadArgs {
    /// Its admin listener: ip:port, localhost:port, or a path of a Unix socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: AdminAddress,
}

pub(super) fn reload(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let admin = &args.admin;
    let asked = request_within(admin, Method::POST, "/reload", RELOAD_TIMEOUT);
    let (status, text) = super::small_runtime()?.block_on(asked)?;
    let text = String::from_utf8_lossy(&text);
    match status {
        StatusCode::OK => {
            say(&text);
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            log::say(&text);
            Ok(ExitCode::from(MISUSED))
        }
        _ => bail!("{admin} answered {status} to a reload: {}", text.trim_end()),
    }
}
