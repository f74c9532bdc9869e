//! Programs that others wrote, as peers.

use std::path::Path;
use std::process::Command;

use crate::support::site::{Cloud, Edge, Site, TO_NODE, Transport, over_each_transport};
use crate::support::tools::find;

over_each_transport!(
    curl_speaks_every_version_of_the_egress,
    curl_uploads_a_file_of_which_every_byte_comes_back,
    nghttp_multiplexes_over_one_connection,
);

/// Runs a program, which must succeed, and returns what it printed.
async fn run(program: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {}: {error}", program.display(), output.status);
    output.stdout
}

async fn site(transport: Transport) -> Site {
    let cloud = Cloud::new().and_egress().egress("tls", "{ cert: cloud.pem, key: cloud.key }");
    Site::with(cloud, Edge::new(transport)).await
}

async fn curl_speaks_every_version_of_the_egress(transport: Transport) {
    let Some(curl) = find("curl") else { return };
    let site = site(transport).await;
    let clear = format!("http://{}/bytes/100000", site.egress());
    let tls = format!("https://localhost:{}/bytes/100000", site.responder.egress_at(1).port());
    let ca = site.folder.path().join("ca.pem").display().to_string();
    for (version, url, expected) in [
        ("--http1.1", &clear, "200 1.1 100000"),
        ("--http2-prior-knowledge", &clear, "200 2 100000"),
        ("--http1.1", &tls, "200 1.1 100000"),
        ("--http2", &tls, "200 2 100000"),
    ] {
        let told = ["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version} %{size_download}"];
        let output = run(&curl, &[&told[..], &["-H", TO_NODE, "--cacert", &ca, version, url]].concat()).await;
        assert_eq!(String::from_utf8_lossy(&output), expected, "{version} {url}");
    }
}

async fn curl_uploads_a_file_of_which_every_byte_comes_back(transport: Transport) {
    let Some(curl) = find("curl") else { return };
    let site = site(transport).await;
    let text = (0..400_000).map(|n| n.to_string()).collect::<String>();
    let file = site.folder.write("upload", &text).display().to_string();
    let url = format!("http://{}/echo", site.egress());
    for more in [&["--http1.1", "-H", "expect: 100-continue"][..], &["--http2-prior-knowledge"]] {
        let output = run(&curl, &[&["-sS", "-H", TO_NODE, "-T", &file, &url], more].concat()).await;
        assert!(output == text.as_bytes(), "{more:?}: {} bytes came back", output.len());
    }
}

async fn nghttp_multiplexes_over_one_connection(transport: Transport) {
    let Some(nghttp) = find("nghttp") else { return };
    let site = site(transport).await;
    let url = format!("http://{}/bytes/20000", site.egress());
    let output = run(&nghttp, &["-H", TO_NODE, "-m", "50", &url]).await;
    assert_eq!(output.len(), 50 * 20_000);
}
