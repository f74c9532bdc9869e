//! Child processes: the built binary, and others.

use std::io::{BufRead, BufReader, Read};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::eventually::{PATIENCE, eventually};

/// A running `adit`.
pub(crate) struct Adit(Program);

/// Another build than the one beside which this was built.
static OTHER: OnceLock<PathBuf> = OnceLock::new();

impl Adit {
    /// Has everything from now on use another build. Only the first call counts.
    pub(crate) fn take(program: PathBuf) {
        OTHER.get_or_init(|| program);
    }

    /// The program that is started.
    pub(crate) fn program() -> &'static Path {
        OTHER.get().map_or_else(|| Path::new(env!("CARGO_BIN_EXE_adit")), PathBuf::as_path)
    }

    /// Starts `adit` with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(Self::program());
        command.args(arguments);
        // Nothing of a test is left where the state of services goes.
        for place in ["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"] {
            command.env_remove(place);
        }
        Self::spawn(command)
    }

    /// Starts another program that has adit in it, such as an example.
    pub(crate) fn spawn(command: Command) -> Self {
        Self(Program::spawn("adit", command))
    }
}

impl Deref for Adit {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl DerefMut for Adit {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}

/// A running program, killed when dropped. What it prints is kept, and shown when the test fails.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
}

impl Program {
    /// `name` is for whoever reads the log.
    pub(crate) fn spawn(name: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_as_it_is(name, command)
    }

    /// One that reads what is written.
    pub(crate) fn interactive(name: &'static str, mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut program = Self::spawn_as_it_is(name, command);
        let input = program.child.stdin.take().unwrap();
        (program, input)
    }

    fn spawn_as_it_is(name: &'static str, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::default();
        let readers = [
            collect(child.stdout.take().unwrap(), Arc::clone(&log)),
            collect(child.stderr.take().unwrap(), Arc::clone(&log)),
        ];
        Self { name, child, log, readers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far, standard output and error together.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits for a line that contains `text`, and returns it.
    pub(crate) async fn line_with(&self, text: &str) -> String {
        let find = async || self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
        eventually(&format!("a line with {text:?}"), find).await
    }

    /// Asks it to drain, as a service manager would.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGKILL: it can do nothing about it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// SIGSTOP: it keeps its connections and does nothing. Returns when all its threads have stopped.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let start = Instant::now();
        while !self.is_frozen() {
            assert!(start.elapsed() < PATIENCE, "{} does not stop", self.name);
            std::thread::yield_now();
        }
    }

    fn is_frozen(&self) -> bool {
        let mut threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        threads.all(|thread| {
            // The state follows the name in parentheses. A thread that ended meanwhile does nothing either.
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
            stat.map_or(true, |stat| stat[stat.rfind(')').unwrap()..].starts_with(") T"))
        })
    }

    /// SIGCONT: it goes on where it was frozen.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends it the signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the end of the process", async || self.ended()).await
    }

    /// Waits for its end, for so long at most; then the log has all that it printed.
    pub(crate) async fn finish(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            let read = self.readers.iter().all(JoinHandle::is_finished);
            if let Some(status) = self.ended().filter(|_| read) {
                return status;
            }
            assert!(start.elapsed() < limit, "{} runs for more than {limit:?}", self.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}, process {}:\n{}", self.name, self.pid(), self.log());
        }
    }
}

/// Reads lines until the pipe closes; the thread ends with the process.
fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    })
}
