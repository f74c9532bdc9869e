//! What a service has done to each request before its target gets it: steps, in the order of the file.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue};

use super::outbound::Outbound;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::is_connection_specific;
use crate::message::path::{Ambiguous, Readings};
use crate::message::pattern::PathPrefix;
use crate::protocol::tcp::is_own_field;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Asks the target for this host (`Host`, or `:authority` in HTTP/2), whatever the client asked for.
    Host(Authority),
    /// Puts `to` in the place of `from` at the beginning of the path, in whole segments. A path that begins otherwise stays.
    ///
    /// The path goes on in its normal form then, and one that can be read in two ways is refused (400): else `/..` could
    /// lead out of `to` again.
    Prefix {
        /// What is replaced.
        from: PathPrefix,
        /// By what.
        to: PathPrefix,
    },
    /// One field in the place of all of this name.
    Set {
        /// Its name.
        name: HeaderName,
        /// Its value; never logged.
        value: HeaderValue,
    },
    /// No field of this name.
    Remove(HeaderName),
}

/// A field that no step may touch: it says where a message ends, or speaks of one connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is a field that says how a message travels; expected another one")]
pub struct Reserved;

impl Step {
    /// Whether a step may set or remove this field.
    ///
    /// # Errors
    ///
    /// [`Reserved`]; for `Host` there is a step of its own.
    pub fn check_field(name: &HeaderName) -> Result<(), Reserved> {
        let is_reserved = is_connection_specific(name)
            || [CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER].contains(name)
            || is_own_field(name);
        if is_reserved { Err(Reserved) } else { Ok(()) }
    }

    /// # Errors
    ///
    /// The request cannot be rewritten without a guess at what its path means.
    pub(super) fn apply(&self, outbound: &mut Outbound) -> Result<(), Failure> {
        match self {
            Self::Host(authority) => outbound.authority = Some(authority.clone()),
            Self::Prefix { from, to } => outbound.path = rewritten(&outbound.path, from, to)?,
            Self::Set { name, value } => {
                outbound.headers.insert(name, value.clone());
            }
            Self::Remove(name) => {
                outbound.headers.remove(name);
            }
        }
        Ok(())
    }
}

fn rewritten(path: &PathAndQuery, from: &PathPrefix, to: &PathPrefix) -> Result<PathAndQuery, Failure> {
    let refused = |reason: String| Failure::new(Cause::BadRequest, reason);
    let readings = Readings::of(path.path());
    if readings.is_ambiguous() {
        return Err(refused(Ambiguous.to_string()));
    }
    let new = from.replaced(readings.normal(), to);
    let new = new.as_deref().unwrap_or_else(|| readings.normal());
    let query = path.query().map(|query| format!("?{query}")).unwrap_or_default();
    PathAndQuery::try_from(format!("{new}{query}")).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn outbound(uri: &str) -> Outbound {
        let request = Request::get(uri).header("x-a", "1").header("x-a", "2").header("x-b", "3").body(()).unwrap();
        Outbound::new(request.into_parts().0).unwrap()
    }

    fn prefix(from: &str, to: &str) -> Step {
        Step::Prefix { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn path(uri: &str, step: &Step) -> Result<String, Cause> {
        let mut outbound = outbound(uri);
        step.apply(&mut outbound).map_err(|failure| failure.cause())?;
        Ok(outbound.path.to_string())
    }

    #[test]
    fn a_prefix_is_replaced_in_whole_segments_and_the_query_stays() {
        for (from, to, uri, expected) in [
            ("/api", "/v2", "http://h/api/x?a=/api", "/v2/x?a=/api"),
            ("/api", "/v2", "http://h/api", "/v2"),
            ("/api", "/", "http://h/api", "/"),
            ("/api", "/", "http://h/api/x/", "/x/"),
            ("/api", "/v2", "http://h/apix", "/apix"),
            ("/", "/shop", "http://h/", "/shop/"),
            ("/", "/shop", "http://h/a?b", "/shop/a?b"),
        ] {
            assert_eq!(path(uri, &prefix(from, to)).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_prefix_that_it_got() {
        let jail = prefix("/", "/site-17");
        for (uri, expected) in [
            ("http://h/../admin", "/site-17/admin"),
            ("http://h/a/%2e%2e/%2E%2e/admin", "/site-17/admin"),
            ("http://h//x", "/site-17/x"),
        ] {
            assert_eq!(path(uri, &jail).as_deref(), Ok(expected), "{uri}");
        }
        for uri in ["http://h/..%2fadmin", "http://h/..;/admin", "http://h/..%5cadmin"] {
            assert_eq!(path(uri, &jail), Err(Cause::BadRequest), "{uri}");
        }
    }

    #[test]
    fn host_and_fields_are_what_the_last_step_says() {
        let mut outbound = outbound("http://shop.example/");
        let name = HeaderName::from_static;
        for step in [
            Step::Host(Authority::from_static("api.internal:8443")),
            Step::Set { name: name("x-a"), value: HeaderValue::from_static("new") },
            Step::Remove(name("x-b")),
            Step::Set { name: name("x-c"), value: HeaderValue::from_static("c") },
        ] {
            step.apply(&mut outbound).unwrap();
        }
        assert_eq!(outbound.authority.unwrap(), "api.internal:8443");
        assert_eq!(outbound.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["new"]);
        assert!(!outbound.headers.contains_key("x-b") && outbound.headers["x-c"] == "c");
    }

    #[test]
    fn what_says_how_a_message_travels_is_out_of_reach() {
        for name in
            ["host", "content-length", "transfer-encoding", "connection", "te", "expect", "upgrade", "adit-service"]
        {
            assert_eq!(Step::check_field(&HeaderName::from_static(name)), Err(Reserved), "{name}");
        }
        assert_eq!(Step::check_field(&HeaderName::from_static("authorization")), Ok(()));
    }
}
