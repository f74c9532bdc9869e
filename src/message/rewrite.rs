//! What is done to each request on its way, as a file says: steps, in their order. A listener does its own before a request
//! enters a tunnel, a service does its own before the target gets it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE, TRAILER};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};
use http_body::Frame;

use crate::message::failure::{Cause, Failure};
use crate::message::fields::{EARLY_DATA, is_connection_specific};
use crate::message::name::{OWN, is_alike, remove_alike};
use crate::message::path::{Ambiguous, Readings};
use crate::message::pattern::PathPrefix;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Asks for this host (`Host`, or `:authority` in HTTP/2), whatever the client asked for.
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
    /// One field in the place of all of this name, and of names that differ only in `_` for `-`: some targets take them for
    /// the same.
    Set {
        /// Its name.
        name: HeaderName,
        /// Its value; never logged.
        value: HeaderValue,
    },
    /// No field of this name, nor of one that differs only in `_` for `-`.
    Remove(HeaderName),
}

/// A field that no step may touch: it says where a message ends, speaks of one connection, or marks what somebody else may
/// have sent again (RFC 8470 section 5.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is a field that says how a message travels; expected another one")]
pub struct Reserved;

impl Step {
    /// Whether a step may set or remove this field. spec: ST-17, ST-29, ST-44
    ///
    /// # Errors
    ///
    /// [`Reserved`]; for `Host` there is a step of its own.
    pub fn check_field(name: &HeaderName) -> Result<(), Reserved> {
        const RESERVED: [HeaderName; 8] =
            [CONTENT_LENGTH, EARLY_DATA, EXPECT, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE, TRAILER];
        let is_reserved = is_connection_specific(name) || RESERVED.contains(name) || name.as_str().starts_with(OWN);
        if is_reserved { Err(Reserved) } else { Ok(()) }
    }

    fn apply(&self, request: &mut Subject<'_>) -> Result<(), Failure> {
        match self {
            Self::Host(authority) => *request.authority = Some(authority.clone()),
            Self::Prefix { from, to } => *request.path = rewritten(request.path, from, to)?,
            Self::Set { name, value } => {
                remove_alike(request.fields, name);
                request.fields.insert(name, value.clone());
            }
            Self::Remove(name) => remove_alike(request.fields, name),
        }
        Ok(())
    }
}

/// Names of fields that the head settles: those of the steps, and what decided where the request goes. Trailers bring none of
/// them, nor one that differs only in `_` for `-`, because some targets add trailers to the fields of the head.
/// RFC 9110 section 6.5.1
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled(Option<Arc<[HeaderName]>>);

impl Settled {
    /// Those of the steps and these.
    pub fn new(steps: &[Step], others: impl IntoIterator<Item = HeaderName>) -> Self {
        let of_steps = steps.iter().filter_map(|step| match step {
            Step::Set { name, .. } | Step::Remove(name) => Some(name.clone()),
            Step::Host(_) | Step::Prefix { .. } => None,
        });
        let names: Vec<HeaderName> = of_steps.chain(others).collect();
        Self(Some(names).filter(|names| !names.is_empty()).map(Arc::from))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Removes them from a frame of a body, if it is trailers.
    pub fn strip(&self, frame: &mut Frame<Bytes>) {
        let (Some(names), Some(trailers)) = (&self.0, frame.trailers_mut()) else { return };
        while let Some(name) = trailers.keys().find(|name| names.iter().any(|other| is_alike(name, other))).cloned() {
            trailers.remove(name);
        }
    }
}

/// The parts of a request that steps are about. `Host` is not among the fields.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Who is asked.
    pub authority: &'a mut Option<Authority>,
    /// For what.
    pub path: &'a mut PathAndQuery,
    /// With which fields.
    pub fields: &'a mut HeaderMap,
}

/// Does these steps, in order.
///
/// # Errors
///
/// [`Cause::BadRequest`]: a step is about the path, which can be read in two ways or would be none any more.
pub fn apply(steps: &[Step], mut request: Subject<'_>) -> Result<(), Failure> {
    steps.iter().try_for_each(|step| step.apply(&mut request))
}

/// Does these steps to a head that [`forward::request`](super::forward::request) has prepared: with scheme, authority and
/// path in its URI, and no `Host`.
///
/// # Errors
///
/// As [`apply`]; the head is of no use then.
pub fn head(steps: &[Step], head: &mut request::Parts) -> Result<(), Failure> {
    if steps.is_empty() {
        return Ok(());
    }
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    let path = uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    apply(steps, Subject { authority: &mut uri.authority, path, fields: &mut head.headers })?;
    head.uri = Uri::from_parts(uri).map_err(|error| Failure::new(Cause::BadRequest, error.to_string()))?;
    Ok(())
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

    fn prefix(from: &str, to: &str) -> Step {
        Step::Prefix { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// A request to this URI after these steps.
    fn after(uri: &str, steps: &[Step]) -> Result<request::Parts, Cause> {
        let request = Request::get(uri).header("x-a", "1").header("x-a", "2").header("x-b", "3").body(()).unwrap();
        let mut parts = request.into_parts().0;
        head(steps, &mut parts).map_err(|failure| failure.cause())?;
        Ok(parts)
    }

    fn path(uri: &str, step: &Step) -> Result<String, Cause> {
        after(uri, std::slice::from_ref(step)).map(|head| head.uri.path_and_query().unwrap().to_string())
    }

    #[test]
    fn no_step_says_how_a_message_travels() {
        for name in ["early-data", "te", "content-length", "connection", "host", "sec-websocket-key"] {
            assert_eq!(Step::check_field(&name.parse().unwrap()), Err(Reserved), "{name}");
        }
        assert_eq!(Step::check_field(&"x-early-data".parse().unwrap()), Ok(()));
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
        let name = HeaderName::from_static;
        let steps = [
            Step::Host(Authority::from_static("api.internal:8443")),
            Step::Set { name: name("x-a"), value: HeaderValue::from_static("new") },
            Step::Remove(name("x-b")),
            Step::Set { name: name("x-c"), value: HeaderValue::from_static("c") },
        ];
        let head = after("http://shop.example/a?b", &steps).unwrap();
        assert_eq!(head.uri, "http://api.internal:8443/a?b");
        assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["new"]);
        assert!(!head.headers.contains_key("x-b") && head.headers["x-c"] == "c");
    }

    #[test]
    fn a_request_for_a_server_as_a_whole_stays_one() {
        let (mut parts, ()) = Request::options("*").body(()).unwrap().into_parts();
        let (mut authority, mut path) = (None, parts.uri.path_and_query().unwrap().clone());
        let subject = Subject { authority: &mut authority, path: &mut path, fields: &mut parts.headers };
        apply(&[prefix("/", "/shop"), Step::Host(Authority::from_static("h"))], subject).unwrap();
        assert_eq!((path.as_str(), authority.unwrap().as_str()), ("*", "h"));
    }

    #[test]
    fn what_says_how_a_message_travels_is_out_of_reach() {
        for name in [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "te",
            "expect",
            "upgrade",
            "adit-service",
            "adit-x",
            "sec-websocket-key",
        ] {
            assert_eq!(Step::check_field(&HeaderName::from_static(name)), Err(Reserved), "{name}");
        }
        assert_eq!(Step::check_field(&HeaderName::from_static("authorization")), Ok(()));
    }

    #[test]
    fn a_step_is_about_all_that_targets_take_for_its_field() {
        let name = HeaderName::from_static;
        let steps =
            [Step::Remove(name("x-admin")), Step::Set { name: name("x-role"), value: "guest".parse().unwrap() }];
        let said = ["x-admin", "x_admin", "x-role", "x_role", "x-node-id", "x_node_id", "x-sum"];
        let mut fields: HeaderMap = said.into_iter().map(|said| (name(said), "evil".parse().unwrap())).collect();
        let mut trailers = Frame::trailers(fields.clone());
        let (mut authority, mut path) = (None, PathAndQuery::from_static("/"));
        apply(&steps, Subject { authority: &mut authority, path: &mut path, fields: &mut fields }).unwrap();
        let left = |fields: &HeaderMap| fields.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(fields["x-role"], "guest");
        assert!(!left(&fields).iter().any(|name| ["x-admin", "x_admin", "x_role"].contains(&name.as_str())));
        Settled::new(&steps, [name("x-node-id")]).strip(&mut trailers);
        assert_eq!(left(trailers.trailers_ref().unwrap()), ["x-sum"]);
        assert!(Settled::new(&[], []).is_empty());
    }
}
