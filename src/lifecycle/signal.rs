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

/// SIGTERM and SIGINT as values. From its making on, they no longer end the process by themselves, and neither do those
/// by which operators ask a daemon to read its files or to open its log again: SIGHUP, SIGUSR1 and SIGUSR2.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Option<Stream>,
    user: [(Stream, &'static str); 2],
}

/// SIGHUP, by which operators ask a daemon to read its files again.
#[derive(Debug)]
pub struct Hangups(Stream);

impl Hangups {
    /// The next one; several that come at once may be one. Never, if the operating system gives none any more. Cancel safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
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
        let user =
            [(signal(SignalKind::user_defined1())?, "SIGUSR1"), (signal(SignalKind::user_defined2())?, "SIGUSR2")];
        let hangup = Some(signal(SignalKind::hangup())?);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
            user,
        })
    }

    /// SIGHUP apart, for whoever can read files again; `None` a second time. Without it, [`Signals::next`] ignores SIGHUP.
    pub fn hangups(&mut self) -> Option<Hangups> {
        self.hangup.take().map(Hangups)
    }

    /// The next signal that asks to stop. Call it again while draining: a second one means "now". One that means nothing
    /// to adit is logged. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        loop {
            let [first, second] = &mut self.user;
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            let name = tokio::select! {
                _ = self.terminate.recv() => return Signal::Terminate,
                _ = self.interrupt.recv() => return Signal::Interrupt,
                () = hangup => "SIGHUP",
                _ = first.0.recv() => first.1,
                _ = second.0.recv() => second.1,
            };
            tracing::warn!(signal = name, "ignored: it means nothing here");
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
        for ignored in ["-HUP", "-USR1", "-USR2"] {
            send(ignored);
        }
        send("-TERM");
        assert_eq!(signals.next().await, Signal::Terminate);
        send("-INT");
        assert_eq!(signals.next().await, Signal::Interrupt);
        assert_eq!(Signal::Terminate.label(), "SIGTERM");
        let mut hangups = signals.hangups().unwrap();
        send("-HUP");
        hangups.next().await;
        assert!(signals.hangups().is_none());
    }
}
