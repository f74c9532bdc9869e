//! Files as operators write them, beside what they get: `bad/*.yaml` with the whole report, `good/*.yaml` with the
//! settings as `/config` shows them. `UPDATE_SNAPSHOTS=1 cargo test --lib config` writes the second half anew.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A few variables and no files.
struct Fixture;

impl Surroundings for Fixture {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "SITE" => Some("edge-17".to_owned()),
            "TOKEN" => Some("correct horse battery staple".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        match path.to_str() {
            Some("/etc/adit/token") => Ok(b"a token with a line break\n".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn can_read(&self, path: &Path) -> std::io::Result<()> {
        let missing = path.to_string_lossy().contains("missing");
        if missing { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(()) }
    }

    fn has_files(&self) -> bool {
        false
    }
}

fn check_text(text: &str) -> Result<Checked, Report> {
    check(text, Path::new("/etc/adit/adit.yaml"), &Fixture)
}

fn folder(name: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests").join(name);
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut yaml: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    yaml.sort();
    assert!(!yaml.is_empty());
    yaml
}

/// Compares each file of a folder with its snapshot, and names all that differ.
fn compare(name: &str, extension: &str, produce: impl Fn(&str) -> String) {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut differing = Vec::new();
    for path in folder(name) {
        let produced = produce(&fs::read_to_string(&path).unwrap());
        let snapshot = path.with_extension(extension);
        if update {
            fs::write(&snapshot, &produced).unwrap();
        }
        let expected = fs::read_to_string(&snapshot).unwrap_or_default();
        if produced != expected {
            differing.push(format!("{}: got\n{produced}\nexpected\n{expected}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn bad_files_get_every_mistake_with_its_line_and_key() {
    compare("bad", "report", |text| match check_text(text) {
        Ok(checked) => format!("accepted: {checked:?}\n"),
        Err(report) => format!("{report}\n"),
    });
}

#[test]
fn good_files_are_complete_and_show_no_secret() {
    compare("good", "json", |text| match check_text(text) {
        Ok(checked) => {
            let shown = serde_json::to_string_pretty(&checked).unwrap();
            assert!(!format!("{shown}{checked:?}").contains("horse"), "a secret is shown");
            format!("{shown}\n")
        }
        Err(report) => format!("{report}\n"),
    });
}

#[test]
fn a_secret_never_reaches_a_report() {
    let text = "initiator: { token: \"${TOKEN}\", tunnels: \"${TOKEN}\" }\n";
    let report = check_text(&text.replace("tunnels", "token2")).unwrap_err().to_string();
    assert!(!report.contains("horse"), "{report}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_report_too() {
    let report = load(Path::new("/nowhere/adit.yaml"), &Process).unwrap_err();
    assert!(report.to_string().starts_with("/nowhere/adit.yaml: cannot be read: "), "{report}");
}

#[test]
fn a_pipe_will_do_for_a_file_and_paths_count_from_the_working_directory() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader)));
    std::io::Write::write_all(&mut writer, b"initiator: { tls: { ca: no/such.pem } }\n").unwrap();
    drop(writer);
    let report = load(&path, &Process).unwrap_err().to_string();
    assert!(report.contains("cannot read no/such.pem: ") && report.contains("expected a file\n"), "{report}");
    let endless = load(Path::new("/dev/zero"), &Process).unwrap_err().to_string();
    assert!(endless.contains("longer than"), "{endless}");
}

// Regression: a file that was named by a relative path could not have relative sockets.
#[test]
fn the_path_of_a_socket_counts_from_the_file_however_that_is_named() {
    let text = "services: [{ name: web, match: {}, target: \"unix:web.sock\" }]\n";
    let report = check(text, Path::new("sub/adit.yaml"), &Process).unwrap_err().to_string();
    assert!(!report.contains("target"), "{report}");
}

#[test]
fn a_missing_file_beside_a_link_says_from_where_paths_count() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("adit.yaml"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("adit.yaml"), "initiator: { tls: { ca: ca.pem } }\n").unwrap();
    std::os::unix::fs::symlink("real/adit.yaml", &link).unwrap();
    let report = load(&link, &Process).unwrap_err().to_string();
    let missing = format!("cannot read {}/ca.pem: ", folder.path().display());
    assert!(
        report.contains(&missing) && report.contains("the folder of the link, not from that of real/adit.yaml"),
        "{report}"
    );
}

#[test]
fn a_secret_from_a_file_has_no_line_break() {
    let text = fs::read_to_string(&folder("good")[0]).unwrap();
    assert!(check_text(&text).is_ok());
    let initiator = check_text(
        "initiator: { node: a, cluster: b, token: 'file:token', tls: { ca: ca.pem }, tunnels: [ { to: 'h:1' } ] }\n\
         services: []",
    )
    .unwrap()
    .initiator
    .unwrap();
    assert_eq!(initiator.token.unwrap().expose(), b"a token with a line break");
}

/// Each key of a tree, with `[]` for any item of a list.
fn paths(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.push(path.clone());
                paths(value, &path, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn settings_are_compared_by_the_keys_of_the_file() {
    let page = keys();
    for path in folder("good") {
        let checked = check_text(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut found = Vec::new();
        paths(&written::written(&checked).unwrap(), "", &mut found);
        let unknown: Vec<_> = found.iter().filter(|key| !page.contains(&format!(" `{key}`\n"))).collect();
        assert!(unknown.is_empty(), "src/config/written.rs has no name of the file for {unknown:?}");
    }
}

#[test]
fn what_a_file_says_is_found_right_when_it_is_verified() {
    for path in folder("good") {
        let checked = check_text(&fs::read_to_string(&path).unwrap()).unwrap();
        checked.verify().unwrap_or_else(|report| panic!("{}: {report}", path.display()));
        let context = Context::new(Place::default(), &Nowhere, Vec::new());
        let again = read(vec![written::as_read(&written::written(&checked).unwrap())], &context).unwrap();
        // Secrets alone are not read back.
        let shown = |checked: &Checked| serde_json::to_value(checked).unwrap();
        assert_eq!(shown(&again), shown(&checked), "{}", path.display());
    }
}

#[test]
fn a_program_makes_what_a_file_says() {
    let text = "responder: { name: adit, listen: { quic: '127.0.0.1:1' }, tls: { cert: a, key: b }, insecure_accept_any: true }\n\
                egress: [ { http: '127.0.0.1:2', host_id: '%REQ(x-node-id)%' } ]\n\
                initiator: { node: a, cluster: b, tunnels: [ { to: 'h:1' } ], tls: { ca: c } }\n\
                services: [ { name: s, match: none, target: 'http://t' } ]\n";
    let mut responder = ResponderConfig::new(ListenerTls::new("a", "b"));
    responder.quic = Some("127.0.0.1:1".parse().unwrap());
    responder.admission.insecure_accept_any = true;
    let claim = crate::id::Claim {
        tenant: crate::id::TenantId::default(),
        cluster: "b".parse().unwrap(),
        node: "a".parse().unwrap(),
    };
    let tls = DialerTls { ca: Some("c".into()), ..DialerTls::default() };
    let mut initiator = InitiatorConfig::new(claim, tls);
    initiator.tunnels.push(TunnelConfig::new("h:1".parse().unwrap()));
    let made = Checked {
        responder: Some(responder),
        initiator: Some(initiator),
        egress: vec![EgressConfig::new("127.0.0.1:2".parse().unwrap(), "%REQ(x-node-id)%".parse().unwrap())],
        services: vec![ServiceConfig::new("s".parse().unwrap(), "http://t".parse().unwrap())],
        ..Checked::default()
    };
    assert_eq!(check(text, Path::new("adit.yaml"), &Nowhere).unwrap(), made);
    made.verify().unwrap();
}

#[test]
fn what_a_program_made_wrong_is_said_by_the_keys_of_the_file() {
    let report = Checked::default().verify().unwrap_err().to_string();
    assert!(report.starts_with("settings: ") && report.contains("expected responder, initiator or both"), "{report}");
    let mut responder = ResponderConfig::new(ListenerTls::new("a", "b"));
    responder.tcp = Some("127.0.0.1:1".parse().unwrap());
    responder.idle_timeout = Duration::from_secs(7200);
    let listener = || EgressConfig::new("127.0.0.1:1".parse().unwrap(), "%REQ(x-node-id)%".parse().unwrap());
    let mut made =
        Checked { responder: Some(responder), egress: vec![listener(), listener()], workers: 0, ..Checked::default() };
    made.egress[1].http_mut().unwrap().limits.head_fields = 7;
    let report = made.verify().unwrap_err().to_string();
    for mistake in [
        "settings: egress[0].http: 127.0.0.1:1 (TCP) is taken by responder.listen.tcp",
        "settings: egress[1].http: 127.0.0.1:1 (TCP) is taken by",
        "settings: egress[1].limits.head_fields: \"7\" is not accepted; expected a whole number from 8 to 256",
        "settings: responder.idle_timeout: \"2h\" is not accepted",
        "settings: workers: \"0\" is not accepted",
    ] {
        assert!(report.contains(mistake), "{mistake} is not in:\n{report}");
    }
    assert!(report.contains("settings: responder"), "nobody is admitted:\n{report}");
    let name = std::os::unix::ffi::OsStrExt::from_bytes(&b"\xff"[..]);
    let name: &std::ffi::OsStr = name;
    made.responder.as_mut().unwrap().state_dir = Some(name.into());
    let report = made.verify().unwrap_err().to_string();
    assert!(report.starts_with("settings: cannot be written") && report.contains("UTF-8"), "{report}");
    let mut other = made.clone();
    other.workers = 1;
    assert!(!made.difference(&other).is_empty() && made.difference(&made).is_empty());
}

#[test]
fn no_text_panics() {
    const STEP: usize = 31;
    let mut text = folder("good").iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    text.push_str("\0\u{feff}é: [&a *a, !!int x, !t {? [] : <<}]\n");
    // Prefixes, suffixes, and texts with one piece cut out.
    for at in (0..text.len()).step_by(STEP).map(|at| text.floor_char_boundary(at)) {
        let rest = &text[text.ceil_char_boundary(at + 7)..];
        let _ = check(&text[..at], Path::new(""), &Nowhere);
        let _ = check(rest, Path::new("a"), &Nowhere);
        let _ = check(&format!("{}{rest}", &text[..at]), Path::new("a/b"), &Nowhere);
    }
}
