//! What operators see of the services.

use super::Services;
use super::exported::Exported;
use crate::targets::health::Standing;
use crate::targets::health::checks::Asked as _;

/// One service as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub target: String,
    /// How it is.
    pub standing: Standing,
    /// Seconds since it is so.
    pub since_seconds: u64,
    /// How many exchanges were refused because a limit of its own was reached, since the service is as it is.
    pub refused: u64,
}

impl Services {
    /// Every service, by name.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let mut services: Vec<_> = self.0.by_name.values().map(|kept| kept.0.status()).collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        services
    }
}

impl Exported {
    fn status(&self) -> ServiceStatus {
        let (standing, since) = self.wellness().standing();
        ServiceStatus {
            name: self.name().to_string(),
            target: self.target().to_owned(),
            standing,
            since_seconds: since.as_secs(),
            refused: self.refused(),
        }
    }
}
