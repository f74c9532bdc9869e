//! The built binary as a child process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::eventually::eventually;

/// A running `adit`, killed when dropped. What it prints is kept.
pub(crate) struct Adit {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Adit {
    /// Starts `adit` with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts another program that has adit in it, such as an example.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::default();
        collect(child.stdout.take().unwrap(), Arc::clone(&log));
        collect(child.stderr.take().unwrap(), Arc::clone(&log));
        Self { child, log }
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
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the end of the process", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Adit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- adit, process {}:\n{}", self.pid(), self.log());
        }
    }
}

/// Reads lines until the pipe closes; the thread ends with the process.
fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    });
}
