//! An HTTP/3 client that we did not write: `tests/foreign/http3.py`, on aioquic.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::process::Program;
use crate::support::site::{Folder, NODE};
use crate::support::tools;

/// A client that does one step after the other on one connection.
pub(crate) struct Http3(Program);

impl Http3 {
    /// Starts it; `None` when the calling test is skipped.
    pub(crate) fn start(address: SocketAddr, folder: &Folder, steps: Vec<Value>) -> Option<Self> {
        Self::start_with(address, folder, steps, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(
        address: SocketAddr,
        folder: &Folder,
        steps: Vec<Value>,
        arguments: &[&str],
    ) -> Option<Self> {
        let mut command = Command::new(tools::python()?);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/http3.py"));
        command.args(["--address", &address.to_string(), "--ca"]).arg(folder.path().join("ca.pem"));
        command.args(arguments).arg(Value::from(steps).to_string());
        Some(Self(Program::spawn("HTTP/3 client", command)))
    }

    /// What it says of the step of this kind and name, once it is done.
    pub(crate) async fn did(&self, step: &str, name: &str) -> Value {
        let line = self.0.line_with(&format!("{{\"did\": \"{step}\", \"name\": \"{name}\"")).await;
        serde_json::from_str(&line).unwrap()
    }

    /// What it says of a step without a name.
    pub(crate) async fn did_once(&self, step: &str) -> Value {
        serde_json::from_str(&self.0.line_with(&format!("{{\"did\": \"{step}\"")).await).unwrap()
    }

    /// What it says first, be it that it could not connect.
    pub(crate) async fn first(&self) -> Value {
        serde_json::from_str(&self.0.line_with("{\"did\": ").await).unwrap()
    }

    /// How the exchange of this name ended, as [`wait`] was told.
    pub(crate) async fn answer(&self, name: &str) -> Answer {
        Answer(self.did("wait", name).await)
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Value);

impl Answer {
    pub(crate) fn status(&self) -> u64 {
        self.0["status"].as_u64().unwrap_or(0)
    }

    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        find(&self.0["fields"], name)
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.0["trailers"], name)
    }

    pub(crate) fn text(&self) -> &str {
        self.0["text"].as_str().unwrap()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0["bytes"].as_u64().unwrap()
    }

    /// Whether it ended as a whole response does.
    pub(crate) fn is_whole(&self) -> bool {
        self.0["whole"] == true
    }
}

fn find<'a>(fields: &'a Value, name: &str) -> Option<&'a str> {
    let fields = fields.as_array().unwrap();
    fields.iter().find(|field| field[0] == name).and_then(|field| field[1].as_str())
}

/// Begins a request of this name to [`NODE`].
pub(crate) fn request(name: &str, method: &str, path: &str) -> Value {
    json!({ "do": "request", "name": name, "method": method, "path": path, "fields": [["x-node-id", NODE.node]] })
}

/// The same with other keys of the step beside or in place of those.
pub(crate) fn request_with(name: &str, method: &str, path: &str, more: Value) -> Value {
    let mut step = request(name, method, path);
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

/// Waits for the end of an exchange.
pub(crate) fn wait(name: &str) -> Value {
    json!({ "do": "wait", "name": name })
}

/// How a client may cut a stream, as steps are called.
pub(crate) const CUTS: [&str; 3] = ["cancel", "reset", "stop"];

/// Opens a stream for each of [`CUTS`], of that name, and cuts it so; then one called `target`, which its target has to end.
pub(crate) fn cuts(open: impl Fn(&'static str) -> [Value; 2]) -> Vec<Value> {
    let cut = |how| open(how).into_iter().chain([json!({ "do": how, "name": how })]);
    CUTS.into_iter().flat_map(cut).chain(open("target")).chain([wait("target")]).collect()
}
