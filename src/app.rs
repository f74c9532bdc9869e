//! Stand-in with the signatures that the commands need; replaced as a whole by the real one.

use std::future::Future;
use std::net::SocketAddr;

use crate::config::{AdminAddress, Checked};

/// Why the process could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The roles are not there yet.
    #[error("this build has no roles")]
    NotBuilt,
}

/// Both roles of one file, bound and ready to run.
#[derive(Debug)]
pub struct App;

impl App {
    /// Binds everything that the settings ask for.
    ///
    /// # Errors
    /// Always, in this stand-in.
    pub async fn build(_checked: Checked) -> Result<Self, AppError> {
        Err(AppError::NotBuilt)
    }

    /// Where requests are taken, in the order of the file.
    pub fn egress_addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Where tunnels are accepted.
    pub fn tunnel_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<AdminAddress> {
        None
    }

    /// Runs until `shutdown`, then drains.
    ///
    /// # Errors
    /// Never, in this stand-in.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), AppError> {
        shutdown.await;
        Ok(())
    }
}
