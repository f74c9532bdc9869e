//! Who asks for a reload beside a signal: an operator through the admin listener, and the files themselves.

use std::path::Path;
use std::process::Output;

use http::{Method, StatusCode};

use super::world::{counted, tunnels};
use crate::cli::{adit, parts};
use crate::support::eventually::eventually;
use crate::support::load::Load;
use crate::support::site::{Cloud, Edge, Folder, Running, Site, TO_NODE, Transport, over_each_transport};

over_each_transport!(an_operator_asks_for_a_reload, a_watched_file_is_read_when_it_changes);

async fn adit_reload(running: &Running) -> Output {
    adit(&["reload", "--admin", &running.admin().to_string()]).await
}

async fn wait_for(running: &Running, wanted: [u64; 3]) {
    let seen = async || (counted(running).await == wanted).then_some(());
    eventually(&format!("reloads that are applied, unchanged, failed: {wanted:?}"), seen).await;
}

async fn an_operator_asks_for_a_reload(transport: Transport) {
    let site = Site::with(Cloud::new(), Edge::new(transport)).await;
    let responder = &site.responder.0;
    let (load, before) = (Load::paced(site.responder.egress(), TO_NODE).await, tunnels(&site.responder).await);
    std::fs::write(responder.file(), Cloud::new().egress("hold", "5s").text()).unwrap();
    let (code, out, err) = parts(&adit_reload(responder).await);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "~ egress[127.0.0.1:0].hold: 2s -> 5s\n", ""));
    let (code, out, _) = parts(&adit_reload(responder).await);
    assert_eq!((code, out.as_str()), (Some(0), "nothing changes\n"));
    std::fs::write(responder.file(), "responder: {\n").unwrap();
    let (code, out, err) = parts(&adit_reload(responder).await);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("cloud.yaml:") && err.contains("cannot be read as YAML"), "{err}");
    assert!(responder.ask(Method::GET, "/config").await.1.contains("\"hold\": \"5s\""));
    assert_eq!(tunnels(&site.responder).await, before);
    load.finish().await;
    wait_for(responder, [1, 1, 1]).await;
}

#[tokio::test]
async fn who_cannot_be_asked_is_said_and_exits_with_1() {
    let nobody = crate::support::ports::free_address().to_string();
    let (code, _, err) = parts(&adit(&["reload", "--admin", &nobody]).await);
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot connect to the admin listener"), "{err}");
    let folder = Folder::new();
    let scraped = crate::support::ports::free_address().to_string();
    let cloud = Cloud::new().process("metrics", &format!("{{ listen: {scraped:?} }}")).start(&folder).await;
    let (code, _, err) = parts(&adit(&["reload", "--admin", &scraped]).await);
    assert_eq!(code, Some(1));
    assert!(err.contains("403") && err.contains("the admin listener has the rest"), "{err}");
    assert_eq!(counted(&cloud.0).await, [0; 3]);
}

/// Editors that truncate, or move another file over it; what is broken is said once and changes nothing.
async fn a_watched_file_is_read_when_it_changes(transport: Transport) {
    let watched = || Cloud::new().process("reload", "{ watch: true }");
    let site = Site::with(watched(), Edge::new(transport)).await;
    let responder = &site.responder.0;
    let (load, before) = (Load::paced(site.responder.egress(), TO_NODE).await, tunnels(&site.responder).await);

    let text = watched().egress("hold", "5s").text();
    std::fs::write(responder.file(), "").unwrap();
    std::fs::write(responder.file(), &text[..text.len() / 2]).unwrap();
    std::fs::write(responder.file(), &text).unwrap();
    wait_for(responder, [1, 0, 0]).await;
    assert!(responder.ask(Method::GET, "/config").await.1.contains("\"hold\": \"5s\""));

    let beside = responder.file().with_extension("new");
    std::fs::write(&beside, watched().egress("hold", "6s").text()).unwrap();
    std::fs::rename(&beside, responder.file()).unwrap();
    wait_for(responder, [2, 0, 0]).await;
    assert!(responder.ask(Method::GET, "/config").await.1.contains("\"hold\": \"6s\""));

    std::fs::write(responder.file(), &text[..text.len() / 2]).unwrap();
    wait_for(responder, [2, 0, 1]).await;
    std::fs::write(responder.file(), watched().egress("hold", "7s").text()).unwrap();
    wait_for(responder, [3, 0, 1]).await;

    // A certificate that the file names.
    site.folder.authority.responder().write(site.folder.path(), "cloud");
    eventually("another certificate", async || {
        let changes = responder.lines_of("other settings are in force");
        changes.iter().find(|line| line["changes"].as_str().unwrap().contains("responder.tls.cert")).cloned()
    })
    .await;
    assert_eq!(tunnels(&site.responder).await, before);
    load.finish().await;
}

/// What Kubernetes does with a mounted volume.
#[tokio::test]
async fn a_swapped_volume_is_one_reload() {
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name);
    let publish = |version: &str, hold: &str| {
        std::fs::create_dir(at(version)).unwrap();
        let text = Cloud::new().process("reload", "{ watch: true }").egress("hold", hold).text();
        std::fs::write(at(version).join("cloud.yaml"), text).unwrap();
        for name in ["cloud.pem", "cloud.key"] {
            let link = at(name);
            if !link.is_symlink() {
                std::fs::rename(&link, at("of-folder").with_extension(name)).unwrap();
                std::os::unix::fs::symlink(Path::new("..data").join(name), &link).unwrap();
            }
        }
        let certificate = folder.authority.responder();
        certificate.write(&at(version), "cloud");
        std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    publish("..v1", "3s");
    std::os::unix::fs::symlink("..data/cloud.yaml", at("cloud.yaml")).unwrap();
    let running = Running::start(at("cloud.yaml")).await;
    publish("..v2", "4s");
    wait_for(&running, [1, 0, 0]).await;
    std::fs::remove_dir_all(at("..v1")).unwrap();
    publish("..v3", "5s");
    wait_for(&running, [2, 0, 0]).await;
    let changes = running.lines_of("other settings are in force");
    let said: Vec<_> = changes.iter().map(|line| line["changes"].as_str().unwrap()).collect();
    for (said, change) in said.iter().zip(["hold: 3s -> 4s", "hold: 4s -> 5s"]) {
        assert!(said.contains(change) && said.contains("responder.tls.cert"), "{said}");
    }
    let (status, _) = running.ask(Method::GET, "/healthz").await;
    assert_eq!(status, StatusCode::OK);
}
