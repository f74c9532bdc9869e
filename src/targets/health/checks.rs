//! Asking a target whether it can be had: on its schedule, or while it is down.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::time::{sleep_until, timeout};

use super::machine::CheckRules;
use super::wellness::{Wellness, down_cause};
use crate::message::failure::Failure;
use crate::protocol::code::DownCause;
use crate::targets::TargetClient;

/// How long a target that is asked only because it is down may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read of an answer, bytes, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;
/// How long that may take. Nobody waits for it.
const REST: Duration = Duration::from_millis(500);

/// How a target is checked, where that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What the target is asked.
    pub asks: Asks,
    /// How often, and how many in a row decide.
    pub rules: CheckRules,
    /// How long an answer may take; longer is a failure.
    pub timeout: Duration,
}

/// What a target is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// To take a connection.
    Connect,
    /// A GET for this path.
    Get {
        /// The path and query.
        path: PathAndQuery,
        /// The status that it must answer; `None`: one of 200 to 299.
        status: Option<StatusCode>,
    },
}

/// Whoever has a target that can be asked.
pub(crate) trait Asked: Send + Sync + 'static {
    /// How it is.
    fn wellness(&self) -> &Wellness;
    /// What reaches its target.
    fn client(&self) -> &TargetClient;
    /// What it is asked for as, by who is no client.
    fn authority(&self) -> &str;
    /// How it is checked, if it is.
    fn check(&self) -> Option<&HealthCheck>;
}

/// Begins to ask a target whenever that is due, if that is to be done and nobody does. Nothing happens without a
/// tokio runtime.
pub(crate) fn begin<S: Asked>(service: &Arc<S>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current()
        && service.wellness().starts_asking()
    {
        runtime.spawn(ask(Arc::clone(service)));
    }
}

/// Runs until the target need not be asked any more, or nobody has it.
async fn ask(service: Arc<impl Asked>) {
    let wellness = service.wellness();
    while let Some(due) = wellness.due() {
        tokio::select! {
            () = wellness.over() => return,
            () = sleep_until(due.into()) => {}
        }
        if wellness.begin() {
            tokio::select! {
                () = wellness.over() => return,
                outcome = once(&*service) => wellness.checked(outcome),
            }
        }
    }
}

/// Asks once.
async fn once(service: &impl Asked) -> Result<(), (DownCause, String)> {
    let (client, check) = (service.client(), service.check());
    let limit = check.map_or(CONNECT_TIMEOUT, |check| check.timeout);
    let asked = async {
        match check.map(|check| &check.asks) {
            None | Some(Asks::Connect) => client.reach().await.map_err(|failure| faulty(&failure)),
            Some(Asks::Get { path, status }) => get((client, service.authority()), path, *status).await,
        }
    };
    let late = |_| (DownCause::TargetTimedOut, format!("it did not answer within {limit:?}"));
    timeout(limit, asked).await.map_err(late)?
}

async fn get(
    (client, authority): (&TargetClient, &str),
    path: &PathAndQuery,
    expected: Option<StatusCode>,
) -> Result<(), (DownCause, String)> {
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path.clone()).build();
    let request = Request::get(uri.unwrap_or_default()).header("user-agent", "adit-health-check");
    let request = request.body(Empty::<bytes::Bytes>::new());
    let request = request.map_err(|error| (DownCause::Failed, error.to_string()))?;
    let response = client.exchange(request).await.map_err(|failure| faulty(&failure))?;
    let (head, body) = response.into_parts();
    let status = head.status;
    // The answer is its head. What comes soon of the rest is read, so that the connection can be used again.
    drop(tokio::spawn(timeout(REST, Limited::new(body, MAX_ANSWER).collect())));
    match expected {
        Some(expected) if status == expected => Ok(()),
        None if status.is_success() => Ok(()),
        Some(expected) => Err(wrong(status, expected.as_str())),
        None => Err(wrong(status, "200 to 299")),
    }
}

fn wrong(status: StatusCode, expected: &str) -> (DownCause, String) {
    (DownCause::CheckFailed, format!("it answered {} to its check; expected {expected}", status.as_u16()))
}

fn faulty(failure: &Failure) -> (DownCause, String) {
    (down_cause(failure.cause()).unwrap_or(DownCause::CheckFailed), failure.details().to_owned())
}
