//! `adit check --explain`: what a file would do with a request, a connection or a datagram, by the code that decides it there.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use adit::config::{self, Checked, Process};
use adit::id::{PeerIdentity, ServiceName};
use adit::policy::traffic::ExplainedRule;
use adit::telemetry::log;
use clap::Args;

use super::{FAILED, MISUSED, say};

mod asked;
mod initiator;
mod listeners;

use asked::Asked;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Print which rule decides and where it goes instead, of a request: a METHOD and a URL, http://host/path, https://host/path,
    /// or with CONNECT host:port; of a connection: tcp and the address of a listener for bytes, as it stands in the file; of a
    /// datagram: udp and that of one for datagrams
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"], requires = "file", conflicts_with_all = ["keys", "diff"])]
    pub(super) explain: Option<Vec<String>>,
    /// With --explain: a field of the request, "name: value"; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD", requires = "explain")]
    headers: Vec<String>,
    /// With --explain: a request at this listener alone, as its address stands in the file; else at all that take the scheme of
    /// the URL
    #[arg(long, value_name = "ADDRESS", requires = "explain")]
    listener: Option<SocketAddr>,
    /// With --explain: who connects, or whom the PROXY header of a trusted proxy names
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", requires = "explain")]
    source: IpAddr,
    /// With --explain tcp: the name that the connection asks for in its TLS; without it, it is none or asks for none
    #[arg(long, value_name = "NAME", requires = "explain")]
    server_name: Option<String>,
    /// With --explain: a name in the certificate of who connects (with --initiator, of the responder), a URI or a DNS name; may be
    /// repeated
    #[arg(long, value_name = "NAME", requires = "explain")]
    client_san: Vec<String>,
    /// With --explain: what the initiator of the file would do with that when it comes through a tunnel; tcp and udp are followed
    /// by the name of a service then
    #[arg(long, requires = "explain", conflicts_with = "listener")]
    initiator: bool,
    /// With --initiator: the service that the request is for; else its host and path say it
    #[arg(long, value_name = "NAME", requires = "initiator")]
    service: Option<ServiceName>,
}

/// What is printed, and whether it goes somewhere wherever it was asked.
struct Told {
    text: String,
    goes: bool,
}

/// Explains at each place that would take what is asked.
pub(super) fn explain(args: &ExplainArgs, file: &Path) -> ExitCode {
    let checked = match config::load(file, &Process) {
        Ok(checked) => checked,
        Err(report) => {
            log::say(&format!("{report}\n"));
            return ExitCode::from(MISUSED);
        }
    };
    match explained(args, &checked) {
        Ok(Told { text, goes }) => {
            say(&text);
            if goes { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(problem) => {
            log::say(&format!("adit: {problem}\n"));
            ExitCode::from(MISUSED)
        }
    }
}

fn explained(args: &ExplainArgs, checked: &Checked) -> Result<Told, String> {
    let asked = Asked::read(args)?;
    if args.initiator { initiator::explain(args, checked, asked) } else { listeners::explain(args, checked, asked) }
}

impl ExplainArgs {
    /// What a certificate proves of who connects.
    fn peer(&self) -> Option<PeerIdentity> {
        let names = self.client_san.iter().cloned();
        let (uri_sans, dns_sans): (Vec<_>, Vec<_>) = names.partition(|name| name.contains("://"));
        (!self.client_san.is_empty()).then(|| PeerIdentity { uri_sans, dns_sans, ..PeerIdentity::default() })
    }
}

/// One way that something goes, or does not.
enum Way {
    /// To there.
    To(String),
    /// Nowhere: what is done instead, and why.
    Nowhere(&'static str, String),
}

impl Told {
    fn new() -> Self {
        Self { text: String::new(), goes: true }
    }

    /// Adds what one place does, and by which rule.
    fn add(&mut self, place: &str, rule: Option<&ExplainedRule>, way: Way) {
        let (decides, way) = match (rule, way) {
            (Some(rule), Way::To(to)) => (rule.to_string(), format!("to      {to}")),
            (None, Way::To(to)) => ("the last rule: allow".to_owned(), format!("to      {to}")),
            (rule, Way::Nowhere(word, why)) => {
                self.goes = false;
                let decides = rule.map_or_else(|| "none decides".to_owned(), ToString::to_string);
                (decides, format!("{word:<8}{why}"))
            }
        };
        self.text += &format!("{place}\n  rule    {decides}\n  {way}\n");
    }

    /// Adds that one place refuses it before any rule is asked.
    fn refused(&mut self, place: &str, word: &str, why: &str) {
        self.goes = false;
        self.text += &format!("{place}\n  rule    none is asked\n  {word:<8}{why}\n");
    }
}
