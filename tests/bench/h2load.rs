//! HTTP/2 in clear, by h2load (Debian's nghttp2-client).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::line::{Kind, Sample, WARM_UP, Workload};
use crate::support::tools;
use crate::target::PAYLOAD;

/// What h2load is told beside the workload.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    /// Whole header lines for every request.
    pub(crate) fields: &'a str,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

/// Sends requests until the time of the workload is over. `None`: h2load is not installed here, and it was said.
pub(crate) fn requests(load: &Load<'_>, workload: Workload) -> Option<Sample> {
    let program = tools::find("h2load")?;
    let folder = TempDir::new().unwrap();
    let (log, body) = (folder.path().join("log"), folder.path().join("body"));
    std::fs::write(&body, vec![b'x'; PAYLOAD]).unwrap();
    let mut command = Command::new(program);
    command
        .arg(format!("--clients={}", load.connections))
        .arg(format!("--max-concurrent-streams={}", load.streams))
        .arg(format!("--duration={}ms", workload.duration.as_millis()))
        .arg(format!("--warm-up-time={}ms", WARM_UP.as_millis()))
        .arg(format!("--log-file={}", log.display()));
    for field in load.fields.lines() {
        command.args(["-H", field]);
    }
    let path = match workload.kind {
        Kind::Get => "/",
        Kind::Connect => return None,
        Kind::Echo => {
            command.arg(format!("--data={}", body.display()));
            "/echo"
        }
    };
    let output = command.arg(format!("http://{}{path}", load.address)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(sample(&log, workload))
}

/// Each line of the log is an exchange: when it began, its status, and what it took, both times in microseconds.
fn sample(log: &Path, workload: Workload) -> Sample {
    let mut sample = Sample::empty();
    sample.elapsed = workload.duration;
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let mut columns = line.split('\t').skip(1);
        let (status, taken) = (columns.next().unwrap(), columns.next().unwrap().parse::<u64>().unwrap());
        // What straddles the warm-up or the end has a status of 0.
        match status {
            "200" => sample.latency.record(taken * 1000).unwrap(),
            "0" => {}
            other => panic!("an exchange of the benchmark ended with {other}"),
        }
    }
    assert!(!sample.latency.is_empty(), "h2load saw no response");
    sample
}
