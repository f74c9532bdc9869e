//! What the operating system asks for.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A request to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM: drain and stop.
    Terminate,
    /// SIGINT, usually from a terminal: drain and stop.
    Interrupt,
}

impl Signal {
    /// The word in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

/// SIGTERM and SIGINT as values. From its making on, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// If the operating system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal. Call it again while draining: a second one means "now". Cancel safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    fn send(name: &str) {
        assert!(Command::new("kill").args([name, &id().to_string()]).status().unwrap().success());
    }

    #[tokio::test]
    async fn signals_arrive_as_values_and_do_not_end_the_process() {
        let mut signals = Signals::new().unwrap();
        send("-TERM");
        assert_eq!(signals.next().await, Signal::Terminate);
        send("-INT");
        assert_eq!(signals.next().await, Signal::Interrupt);
        assert_eq!(Signal::Terminate.label(), "SIGTERM");
    }
}
