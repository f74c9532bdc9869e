//! iperf3, which measures TCP and UDP on one port: a listener for each has the same one.

use std::process::Command;

use http::Method;
use serde_json::Value;

use crate::run::{Run, not_on_path};
use crate::support::eventually::eventually;
use crate::support::ports;
use crate::support::process::Program;
use crate::support::site::{Cloud, Edge, Site};

/// Of UDP: bits a second that are sent, and bytes of each datagram.
const UDP: [&str; 5] = ["--udp", "--bitrate", "50M", "--length", "1200"];

pub(crate) fn missing() -> Vec<&'static str> {
    not_on_path(&["iperf3"])
}

pub(crate) async fn run(run: Run) {
    let (target, listener) = (ports::free_address(), ports::free_address());
    let mut serve = Command::new("iperf3");
    serve.args(["--server", "--bind", "127.0.0.1", "--port", &target.port().to_string(), "--forceflush"]);
    let server = Program::spawn("iperf3 server", serve);
    let edge = Edge::new(run.transport)
        .service(&format!("{{ name: bytes, target: \"tcp://{target}\" }}"))
        .service(&format!("{{ name: datagrams, target: \"udp://{target}\" }}"));
    let address = format!("\"{listener}\"");
    let cloud = Cloud::new().and_tcp("bytes").egress("tcp", &address).and_udp("datagrams").egress("udp", &address);
    let site = Site::with(cloud, edge).await;

    let mut tests = 0;
    let (port, seconds) = (listener.port().to_string(), run.size.seconds.to_string());
    let common = ["--client", "127.0.0.1", "--port", &port, "--time", &seconds, "--json"];
    for (way, reverse) in [("up", None), ("down", Some("--reverse"))] {
        ready(&server, &mut tests).await;
        run.begin(format!("TCP {way}, {seconds} s"));
        let end = measure(&run, common.into_iter().chain(reverse)).await;
        let bits = number(&end, "/sum_received/bits_per_second");
        assert!(bits > 0.0, "{end}");
        run.done(format!("{:.0} MiB/s", bits / 8.0 / f64::from(1 << 20)));
    }
    for (way, reverse) in [("up", None), ("down", Some("--reverse"))] {
        ready(&server, &mut tests).await;
        run.begin(format!("UDP {way}, {seconds} s, 50 Mbit/s in datagrams of 1200 bytes"));
        let before = Drops::so_far(&site).await;
        let end = measure(&run, common.into_iter().chain(UDP).chain(reverse)).await;
        let of = |key: &str| number(&end, &format!("/sum/{key}"));
        let (lost, sent) = (of("lost_packets"), of("packets"));
        assert!(sent > lost, "{end}");
        let mut result = format!("lost {lost} of {sent}, jitter {:.0} µs", of("jitter_ms") * 1e3);
        if lost > 0.0 {
            result += &Drops::so_far(&site).await.since(before);
        }
        run.done(result);
    }
}

/// Where datagrams were lost.
#[derive(Clone, Copy)]
struct Drops {
    /// By one of the two ends, by their own word.
    adit: u64,
    /// In buffers of sockets that nobody read in time, of any process here.
    system: u64,
}

impl Drops {
    async fn so_far(site: &Site) -> Self {
        let mut adit = 0;
        for end in [&site.responder.0, &site.initiator] {
            let (_, metrics) = end.ask(Method::GET, "/metrics").await;
            let dropped = metrics.lines().filter(|line| line.starts_with("adit_flow_datagrams_dropped_total"));
            adit += dropped.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        Self { adit, system: overflows().unwrap_or(0) }
    }

    fn since(self, before: Self) -> String {
        let [adit, system] = [self.adit - before.adit, self.system - before.system];
        format!(" (dropped by adit: {adit}, by full buffers of any sockets here: {system})")
    }
}

/// `RcvbufErrors` of the system.
fn overflows() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "RcvbufErrors")?;
    values.split(' ').nth(at)?.parse().ok()
}

/// Waits until the server has done with the tests before, and takes another: it refuses one that comes earlier.
async fn ready(server: &Program, tests: &mut usize) {
    let listens = async || server.log().matches("Server listening").nth(*tests).map(|_| ());
    eventually("that the server takes a test", listens).await;
    *tests += 1;
}

/// What it says at the end of a measurement.
async fn measure<'a>(run: &Run, arguments: impl Iterator<Item = &'a str>) -> Value {
    let mut command = Command::new("iperf3");
    command.args(arguments);
    let (said, _) = run.command("iperf3", command).await;
    let mut told: Value = serde_json::from_str(&said).unwrap();
    assert!(told["error"].is_null(), "{}", told["error"]);
    told["end"].take()
}

fn number(told: &Value, at: &str) -> f64 {
    told.pointer(at).and_then(Value::as_f64).unwrap_or_else(|| panic!("it does not say {at}: {told}"))
}
