//! Waiting for a point in the calendar.

use std::time::{Duration, SystemTime};

/// How often the clock is looked at: it may be set meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Resolves once that time has come; never without one. Cancel safe.
pub(crate) async fn moment(at: Option<SystemTime>) {
    let Some(at) = at else { return std::future::pending().await };
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_over_has_come_and_none_never_does() {
        moment(Some(SystemTime::now() - Duration::from_secs(1))).await;
        moment(Some(SystemTime::now() + Duration::from_millis(20))).await;
        let never = tokio::time::timeout(Duration::from_millis(20), moment(None)).await;
        assert!(never.is_err());
    }
}
