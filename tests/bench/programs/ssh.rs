//! OpenSSH: a server of its own at the site; a shell on a terminal, and copies there and back.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::time::{Duration, Instant};

use crate::content::{Content, Hasher, PIECE};
use crate::run::{Run, may_unshare, not_on_path, rate};
use crate::support::eventually::PATIENCE;
use crate::support::ports;
use crate::support::process::Program;

/// Lines that are typed and waited for.
const LINES: u32 = 20;

/// Debian has it where not every path leads.
const SSHD: &str = "/usr/sbin/sshd";

/// A shell of root finds what it must not write in folders of its own: who is logged in, and who was.
const APART: &str = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && mount -t tmpfs none /var/log && \
                     touch /run/utmp /var/log/wtmp /var/log/lastlog && exec \"$@\"";

pub(crate) fn missing() -> Vec<&'static str> {
    let mut missing = not_on_path(&["ssh", "scp", "ssh-keygen", "id"]);
    if !Path::new(SSHD).is_file() {
        missing.push("sshd");
    }
    if missing.is_empty() && user() == "root" && !may_unshare("--mount") {
        missing.push("unshare --mount, for the server of root");
    }
    missing
}

pub(crate) async fn run(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&run, folder.path()).await;
    let site = run.bytes_to(server.address).await;
    let client = Client::at(site.responder.tcp_at(0), folder.path());
    shell(&run, &client).await;
    copies(&run, &client, folder.path()).await;
}

/// Who runs this is who logs in.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server with keys made for it, which takes nothing from the system's. Ends with this value.
struct Server {
    address: SocketAddr,
    _program: Program,
}

impl Server {
    async fn start(run: &Run, folder: &Path) -> Self {
        for name in ["host", "user"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f", name]).current_dir(folder);
            run.command("ssh-keygen", make).await;
        }
        let address = ports::free_address();
        let path = folder.display();
        let text = format!(
            "ListenAddress {address}\nHostKey {path}/host\nAuthorizedKeysFile {path}/user.pub\nPidFile none\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nSubsystem sftp internal-sftp\n\
             # The folder above is everybody's.\nStrictModes no\n"
        );
        let file = folder.join("sshd_config");
        std::fs::write(&file, text).unwrap();
        let mut command = if user() == "root" {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", APART, "sh", SSHD]);
            command
        } else {
            Command::new(SSHD)
        };
        command.args(["-D", "-e", "-f"]).arg(file);
        let program = Program::spawn("sshd", command);
        program.line_with("Server listening on").await;
        Self { address, _program: program }
    }
}

/// A client that knows the server's key, and has the one that it lets in.
struct Client {
    options: Vec<String>,
    host: String,
}

impl Client {
    fn at(listener: SocketAddr, folder: &Path) -> Self {
        let known = folder.join("known_hosts");
        let key = std::fs::read_to_string(folder.join("host.pub")).unwrap();
        std::fs::write(&known, format!("[{}]:{} {key}", listener.ip(), listener.port())).unwrap();
        let options = [
            format!("Port={}", listener.port()),
            format!("IdentityFile={}", folder.join("user").display()),
            format!("UserKnownHostsFile={}", known.display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "BatchMode=yes".to_owned(),
        ];
        let options = ["-F".to_owned(), "none".to_owned()]
            .into_iter()
            .chain(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
        Self { options: options.collect(), host: format!("{}@{}", user(), listener.ip()) }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments);
        command
    }
}

/// A shell on a terminal, by hand: what it answers, that Ctrl-C reaches what runs, and how it ends.
async fn shell(run: &Run, client: &Client) {
    run.begin(format!("ssh -tt: a shell, {LINES} lines typed, Ctrl-C, exit code"));
    let (shell, input) = Program::interactive("ssh", client.command("ssh", &["-tt", &client.host, "PS1= exec sh"]));
    let mut terminal = Terminal { shell, input };
    terminal.typed("tty\n");
    terminal.says("a terminal", |line| line.starts_with("/dev/pts/")).await;
    let mut times = Vec::new();
    for number in 0..LINES {
        let (begun, sum) = (Instant::now(), format!("sum {}", number + 1000));
        terminal.typed(&format!("echo sum $(({number} + 1000))\n"));
        terminal.says(&sum, |line| line == sum).await;
        times.push(begun.elapsed());
    }
    times.sort();
    terminal.typed("echo sleeping; sleep 1000\n");
    terminal.says("that it sleeps", |line| line == "sleeping").await;
    terminal.typed("\x03");
    terminal.typed("echo woken\n");
    terminal.says("that it woke", |line| line == "woken").await;
    terminal.typed("exit 7\n");
    let status = terminal.shell.finish(PATIENCE).await;
    assert_eq!(status.code(), Some(7), "{}", terminal.shell.log());
    let half = times[times.len() / 2].as_secs_f64() * 1e3;
    run.done(format!("all answered, p50 {half:.0} ms each; Ctrl-C ended a sleep; exit code 7"));
}

/// What somebody sits at.
struct Terminal {
    shell: Program,
    input: ChildStdin,
}

impl Terminal {
    fn typed(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for a line. The terminal also shows what was typed, on lines of its own.
    async fn says(&self, what: &str, is: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !self.shell.log().lines().any(|line| is(line.trim())) {
            assert!(start.elapsed() < PATIENCE, "not said: {what}: {}", self.shell.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A file to the site and back, of which each copy has the hash of the first.
async fn copies(run: &Run, client: &Client, folder: &Path) {
    let bytes = run.size.bytes;
    let [first, there, back] = ["first", "there", "back"].map(|name| folder.join(name));
    let made = first.clone();
    let sum = tokio::task::spawn_blocking(move || make(&made, bytes).unwrap()).await.unwrap();
    let at_site = format!("{}:{}", client.host, there.display());
    let [first, back] = [first, back].map(|path| path.to_str().unwrap().to_owned());
    for (what, from, to, copy) in
        [("to the site", &first, &at_site, there.clone()), ("from the site", &at_site, &back, PathBuf::from(&back))]
    {
        run.begin(format!("scp of {bytes} bytes {what}"));
        let (_, time) = run.command("scp", client.command("scp", &["-q", from, to])).await;
        let copied = tokio::task::spawn_blocking(move || hash(&copy).unwrap()).await.unwrap();
        assert_eq!(copied, sum, "the copy is another file");
        run.done(format!("{}; equal SHA-256 {}...", rate(bytes, time), &sum[..16]));
    }
}

/// Writes a file of this length, and says its hash.
fn make(path: &Path, bytes: u64) -> io::Result<String> {
    let (content, mut file, mut hasher) = (Content { seed: bytes }, File::create(path)?, Hasher::new());
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    while at < bytes {
        let length = PIECE.min((bytes - at) as usize);
        content.fill(at, &mut piece[..length]);
        hasher.update(&piece[..length]);
        file.write_all(&piece[..length])?;
        at += length as u64;
    }
    Ok(hasher.sum())
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut piece) = (File::open(path)?, Hasher::new(), vec![0; PIECE]);
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(hasher.sum());
        }
        hasher.update(&piece[..length]);
    }
}
