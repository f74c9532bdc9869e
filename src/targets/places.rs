//! What may be under way for one target, and at it. Beyond it: 503, with a time to come again.

mod bound;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use self::bound::{Bound, Seat};
use super::body::TargetBody;
use super::held::Held;
use super::settings::CONNECTION_WAIT;
use crate::message::failure::{Cause, Failure};

/// When a client that was told so should come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one target may have; `None`: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceLimits {
    /// Exchanges under way at once, raw streams among them, those that wait for a connection too. Beyond: 503.
    pub in_flight: Option<u32>,
    /// Connections to the target that are in use at once, and no more unused ones beside them. What is beyond waits up to
    /// [`CONNECTION_WAIT`], and then: 503. Without meaning for a target of HTTP/2, which has 8 at most.
    pub connections: Option<u32>,
}

/// The places of one target.
pub(crate) struct Places {
    /// Whose it is, as the client is told: `the service`.
    whose: &'static str,
    in_flight: Option<Bound>,
    connections: Option<Bound>,
    limits: ServiceLimits,
    /// How many found none.
    full: Arc<AtomicU64>,
}

/// The place of one exchange, as long as this lives, or what it has lent. Nothing where there is no limit.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<Arc<Taken>>);

impl Place {
    /// Keeps it taken for as long as this body is under way, and what it has begun at its target.
    pub(crate) fn lend(&self, body: &TargetBody) {
        if let Some(taken) = &self.0 {
            body.hold(Arc::clone(taken) as Held);
        }
    }
}

#[derive(Debug)]
struct Taken {
    _in_flight: Option<Seat>,
    _connection: Option<Seat>,
}

impl Places {
    pub(crate) fn new(whose: &'static str, limits: ServiceLimits) -> Self {
        let (in_flight, connections) = (limits.in_flight.map(Bound::new), limits.connections.map(Bound::new));
        Self { whose, in_flight, connections, limits, full: Arc::default() }
    }

    /// Those of the same target by other limits: what is under way counts, as far as there was a limit for it, and who waits
    /// keeps its turn. The limits hold from the first that takes a place here.
    pub(crate) fn renewed(&self, limits: ServiceLimits) -> Self {
        let bound = |former: &Option<Bound>, most: Option<u32>| {
            most.map(|most| former.as_ref().map_or_else(|| Bound::new(most), |former| former.renewed(most)))
        };
        let (in_flight, connections) =
            (bound(&self.in_flight, limits.in_flight), bound(&self.connections, limits.connections));
        Self { whose: self.whose, in_flight, connections, limits, full: Arc::clone(&self.full) }
    }

    /// How many exchanges were refused for want of a place.
    pub(crate) fn refused(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// A place for one more.
    ///
    /// # Errors
    ///
    /// There is none, as the client is to be told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives back what it has.
    pub(crate) async fn take(&self) -> Result<Place, Failure> {
        if self.in_flight.is_none() && self.connections.is_none() {
            return Ok(Place::default());
        }
        let taken = Taken { _in_flight: self.enter()?, _connection: self.connection().await? };
        Ok(Place(Some(Arc::new(taken))))
    }

    fn enter(&self) -> Result<Option<Seat>, Failure> {
        let Some(bound) = &self.in_flight else { return Ok(None) };
        let most = self.limits.in_flight.unwrap_or_default();
        let taken = bound.try_take().ok_or_else(|| self.is_full(format!("{most} are under way, and no more may be")));
        taken.map(Some)
    }

    async fn connection(&self) -> Result<Option<Seat>, Failure> {
        let Some(bound) = &self.connections else { return Ok(None) };
        // Who waits is served in turn, and nobody passes those who do.
        let taken = timeout(CONNECTION_WAIT, bound.take()).await;
        let most = self.limits.connections.unwrap_or_default();
        match taken {
            Ok(Some(taken)) => Ok(Some(taken)),
            Ok(None) | Err(_) => {
                Err(self.is_full(format!("none of {most} connections to its target was free for {CONNECTION_WAIT:?}")))
            }
        }
    }

    fn is_full(&self, why: String) -> Failure {
        self.full.fetch_add(1, Ordering::Relaxed);
        Failure::new(Cause::ServiceFull, format!("{} has no room: {why}", self.whose)).retry_after(RETRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn places(in_flight: Option<u32>, connections: Option<u32>) -> Places {
        Places::new("the service", ServiceLimits { in_flight, connections })
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_what_may_be_under_way_nobody_waits() {
        let (places, began) = (places(Some(2), None), Instant::now());
        let (first, _second) = (places.take().await.unwrap(), places.take().await.unwrap());
        let failure = places.take().await.unwrap_err();
        assert_eq!((failure.cause(), began.elapsed()), (Cause::ServiceFull, Duration::ZERO));
        assert_eq!(failure.details(), "the service has no room: 2 are under way, and no more may be");
        assert_eq!(failure.response().headers()["retry-after"], "1");
        drop(first);
        assert!(places.take().await.is_ok());
        assert_eq!(places.refused(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_waited_for_in_turn_and_not_for_long() {
        let places = Arc::new(places(None, Some(1)));
        let first = places.take().await.unwrap();
        let wait = |places: &Arc<Places>| {
            let places = Arc::clone(places);
            tokio::spawn(async move { places.take().await.map(|place| (place, Instant::now())) })
        };
        let (second, third, began) = (wait(&places), wait(&places), Instant::now());
        tokio::time::sleep(CONNECTION_WAIT / 2).await;
        drop(first);
        let (_second, at) = second.await.unwrap().unwrap();
        assert_eq!(at - began, CONNECTION_WAIT / 2);
        assert_eq!(third.await.unwrap().unwrap_err().cause(), Cause::ServiceFull);
        assert_eq!(began.elapsed(), CONNECTION_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_connection_is_under_way_and_who_goes_away_is_not() {
        let places = places(Some(2), Some(1));
        let _first = places.take().await.unwrap();
        assert!(
            timeout(CONNECTION_WAIT / 2, async {
                tokio::join!(places.take(), async {
                    assert_eq!(places.take().await.unwrap_err().cause(), Cause::ServiceFull);
                    std::future::pending::<()>().await;
                })
            })
            .await
            .is_err()
        );
        assert_eq!(places.in_flight.as_ref().unwrap().free(), 1);
    }

    // What was under way before a reload did not count after it.
    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_counts_by_other_limits_too() {
        let former = places(Some(2), None);
        let (first, second) = (former.take().await.unwrap(), former.take().await.unwrap());
        let less = former.renewed(ServiceLimits { in_flight: Some(1), connections: None });
        let failure = less.take().await.unwrap_err();
        assert_eq!(failure.details(), "the service has no room: 1 are under way, and no more may be");
        drop(first);
        assert!(less.take().await.is_err(), "one of two is over, and one is as many as there may be");
        drop(second);
        let third = less.take().await.unwrap();
        assert!(less.take().await.is_err());
        let more = less.renewed(ServiceLimits { in_flight: Some(3), connections: None });
        let more_of_them = (more.take().await.unwrap(), more.take().await.unwrap());
        assert!(more.take().await.is_err());
        drop((third, more_of_them));
        let all = [more.take().await, more.take().await, more.take().await];
        assert!(all.iter().all(Result::is_ok) && more.take().await.is_err());
        assert_eq!(more.refused(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_that_nobody_came_to_use_change_nothing() {
        let former = places(Some(1), None);
        let never = former.renewed(ServiceLimits { in_flight: Some(9), connections: None });
        let _first = former.take().await.unwrap();
        assert!(former.take().await.is_err());
        let again = former.renewed(ServiceLimits { in_flight: Some(2), connections: None });
        let _second = again.take().await.unwrap();
        assert!(again.take().await.is_err() && former.take().await.is_err());
        drop(never);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_connection_gets_one_of_those_that_more_may_have() {
        let former = places(None, Some(1));
        let _first = former.take().await.unwrap();
        let more = former.renewed(ServiceLimits { in_flight: None, connections: Some(3) });
        let began = Instant::now();
        let (waited, came) = tokio::join!(former.take(), more.take());
        assert!(waited.is_ok() && came.is_ok() && began.elapsed().is_zero());
        let less = more.renewed(ServiceLimits { in_flight: None, connections: Some(1) });
        drop(came);
        assert!(less.take().await.is_err());
        drop(waited);
        assert!(less.take().await.is_err());
        drop(_first);
        assert!(less.take().await.is_ok());
    }
}
