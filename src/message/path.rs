//! The path of a request as it is matched. What goes on is the path as it came.
//!
//! A prefix that chooses a service must not depend on who reads the path. So a path is matched in its normal form: escaped
//! letters, digits and `-._~` are decoded (`%2e` is a dot), other escapes get upper-case digits, dot segments are resolved
//! and empty segments dropped (RFC 3986 section 6.2.2). Some bytes are part of a name for one reader and divide names for
//! another: `%2f`, `\`, `%5c`, and what follows a `;` behind dots. A path that has them is read both ways, and where the two
//! readings mean different services, nobody is asked.

use std::borrow::Cow;

/// The two readings of a path would be served by different services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path can be read in two ways that mean different services: %2f, \\, %5c or dots before ; as part of a name and as \
     what divides names"
)]
pub struct Ambiguous;

/// A path, as all that read it may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings<'a> {
    normal: Cow<'a, str>,
    /// The reading of whoever takes more bytes for a divider, where it is another one.
    divided: Option<String>,
}

impl<'a> Readings<'a> {
    /// The readings of the path of a URI, without query. Allocates only where a path is not in its normal form.
    pub fn of(path: &'a str) -> Self {
        if is_normal(path) {
            return Self { normal: Cow::Borrowed(path), divided: None };
        }
        let normal = resolve(&decode(path), |segment| segment);
        let divided = is_ambiguous(path).then(|| resolve(&divide(&normal), |segment| before_parameters(segment)));
        let divided = divided.filter(|divided| *divided != normal);
        Self { normal: Cow::Owned(normal), divided }
    }

    /// The path as RFC 3986 reads it.
    pub fn normal(&self) -> &str {
        &self.normal
    }

    /// Whether somebody may read it otherwise.
    pub fn is_ambiguous(&self) -> bool {
        self.divided.is_some()
    }

    /// What `find` makes of the path, if it makes the same of every reading.
    ///
    /// # Errors
    /// [`Ambiguous`]: it does not.
    pub fn agree<T: PartialEq>(&self, find: impl Fn(&str) -> T) -> Result<T, Ambiguous> {
        let found = find(&self.normal);
        match &self.divided {
            Some(divided) if find(divided) != found => Err(Ambiguous),
            _ => Ok(found),
        }
    }

    /// As [`agree`](Self::agree), and with whoever takes what follows a `;` for no part of a segment's name, too, as servers of
    /// Java do. For what a path must not get around: `/admin;x` is `/admin` to some.
    ///
    /// # Errors
    /// [`Ambiguous`]: the readings mean different things.
    pub fn agree_strictly<T: PartialEq>(&self, find: impl Fn(&str) -> T) -> Result<T, Ambiguous> {
        let found = self.agree(&find)?;
        let named = self.divided.as_deref().unwrap_or(&self.normal);
        if named.contains(';') && find(&resolve(&without_parameters(named), |segment| segment)) != found {
            return Err(Ambiguous);
        }
        Ok(found)
    }
}

/// Whether a path certainly reads the same for everybody.
fn is_normal(path: &str) -> bool {
    let mut before = 0;
    for byte in path.bytes() {
        let is_odd = matches!(byte, b'%' | b'\\') || (before == b'/' && matches!(byte, b'/' | b'.'));
        if is_odd {
            return false;
        }
        before = byte;
    }
    true
}

fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    path.contains(['\\', ';'])
        || bytes.windows(3).any(|escape| escape.eq_ignore_ascii_case(b"%2f") || escape.eq_ignore_ascii_case(b"%5c"))
}

/// Decodes what an escape never changes the meaning of, and writes the other escapes alike.
fn decode(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match escaped(rest) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                3
            }
            Some(_) => {
                decoded.push_str(&rest[..3].to_ascii_uppercase());
                3
            }
            None => {
                decoded.push('%');
                1
            }
        };
        rest = &rest[length..];
    }
    decoded.push_str(rest);
    decoded
}

/// The byte that an escape at the beginning of `text` stands for.
fn escaped(text: &str) -> Option<u8> {
    let digits = text.as_bytes().get(1..3)?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// Resolves dot segments and drops empty ones; `name` is what of a segment is looked at for dots. RFC 3986 section 5.2.4
fn resolve(path: &str, name: impl Fn(&str) -> &str) -> String {
    let Some(below) = path.strip_prefix('/') else { return path.to_owned() };
    let mut segments: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for segment in below.split('/') {
        is_folder = true;
        match name(segment) {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => {
                segments.push(segment);
                is_folder = false;
            }
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if is_folder || segments.is_empty() {
        resolved.push('/');
    }
    resolved
}

fn divide(normal: &str) -> String {
    normal.replace('\\', "/").replace("%2F", "/").replace("%5C", "/")
}

/// `..;x` is a dot segment for whoever takes `;x` for its parameters.
fn before_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or(segment)
}

fn without_parameters(path: &str) -> String {
    path.split('/').map(before_parameters).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> (String, Option<String>) {
        let Readings { normal, divided } = Readings::of(path);
        (normal.into_owned(), divided)
    }

    #[test]
    fn dots_escapes_and_empty_segments_are_resolved() {
        for (path, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/a.b/.c", "/a.b/.c"),
            ("/h2/../x", "/x"),
            ("/h2/..", "/"),
            ("/h2/.", "/h2/"),
            ("/h2/./x", "/h2/x"),
            ("/../../x", "/x"),
            ("/h2/%2e%2E/x", "/x"),
            ("/h2/.%2e/x", "/x"),
            ("//h2//x//", "/h2/x/"),
            ("/%68%32/x", "/h2/x"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/a%zz%2", "/a%zz%2"),
            ("/a%", "/a%"),
        ] {
            assert_eq!(read(path), (normal.to_owned(), None), "{path}");
        }
    }

    #[test]
    fn what_divides_for_some_is_read_both_ways() {
        for (path, normal, divided) in [
            ("/h2%2f..%2fx", "/h2%2F..%2Fx", "/x"),
            ("/h2%5c..\\x", "/h2%5C..\\x", "/x"),
            ("/a/..%2f..%2Fx", "/a/..%2F..%2Fx", "/x"),
            ("/h2/..;a=b/x", "/h2/..;a=b/x", "/x"),
            ("/@scope%2fname", "/@scope%2Fname", "/@scope/name"),
        ] {
            assert_eq!(read(path), (normal.to_owned(), Some(divided.to_owned())), "{path}");
        }
        assert_eq!(read("/a;b=c/./d"), ("/a;b=c/d".to_owned(), None), "parameters of a name stay");
    }

    #[test]
    fn readings_that_mean_the_same_agree() {
        let service = |path: &str| path.starts_with("/h2");
        assert_eq!(Readings::of("/h2/a%2fb").agree(service), Ok(true));
        assert_eq!(Readings::of("/h2%2f../x").agree(service), Err(Ambiguous));
        assert_eq!(Readings::of("/h2/../x").agree(service), Ok(false));
        assert_eq!(Readings::of("/x\\..\\h2").agree(|_| ()), Ok(()));
    }

    #[test]
    fn parameters_hide_no_name_from_a_strict_reader() {
        let admin = |path: &str| path == "/admin" || path.starts_with("/admin/");
        for hidden in ["/admin;x", "/admin;x/y", "/a/..;/admin;x", "/%61dmin;/x", "/a%2f..%2fadmin;x"] {
            assert_eq!(Readings::of(hidden).agree_strictly(admin), Err(Ambiguous), "{hidden}");
        }
        for (path, is_admin) in [("/admin/x;y", true), ("/a;admin", false), ("/admin", true), ("/b;c/d", false)] {
            assert_eq!(Readings::of(path).agree_strictly(admin), Ok(is_admin), "{path}");
        }
    }
}
