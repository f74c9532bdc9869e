//! The small languages inside one value: durations, sizes, `${NAME}` references.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A whole number with a unit, such as `500ms`, `10s`, `2m` or `1h`; `0` needs none.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    with_unit(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// The shortest text that [`duration`] reads back as the same value.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0".to_owned();
    }
    let (unit, factor) =
        DURATION_UNITS.iter().rev().find(|(_, factor)| millis % factor == 0).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", millis / factor)
}

/// A count of bytes: a whole number, alone or with `KiB`, `MiB` or `GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    digits(text).or_else(|| with_unit(text, &SIZE_UNITS))
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    digits(number)?.checked_mul(*factor)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Why a `${NAME}` could not be replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReferenceError {
    /// The variable of this name is not set.
    Unset(String),
    /// No `}` follows, or what stands between is not a name.
    Malformed,
}

/// Replaces each `${NAME}`; `$${` stands for a literal `${`. What a variable holds is not looked at again.
pub(super) fn interpolate(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, ReferenceError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (name, after) = rest[at + 2..].split_once('}').ok_or(ReferenceError::Malformed)?;
        if !is_variable_name(name) {
            return Err(ReferenceError::Malformed);
        }
        out.push_str(&variable(name).ok_or_else(|| ReferenceError::Unset(name.to_owned()))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_no_fractions() {
        for (text, millis) in [("0", 0), ("250ms", 250), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1 day", "99999999999999999999s", "18446744073709551615h", "1s2"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for text in ["0", "250ms", "10s", "90s", "2m", "1h"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_binary_units() {
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("64KiB"), Some(65536));
        assert_eq!(size("2 MiB"), Some(2 << 20));
        for text in ["", "64K", "64kb", "-1", "1.5MiB", "99999999999999999999"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn references_are_replaced_once_and_can_be_escaped() {
        let look_up = |name: &str| (name == "A").then(|| "${B}".to_owned());
        assert_eq!(interpolate("x${A}y", look_up), Ok("x${B}y".to_owned()));
        assert_eq!(interpolate("$${A} $5 $", look_up), Ok("${A} $5 $".to_owned()));
        assert_eq!(interpolate("${B}", look_up), Err(ReferenceError::Unset("B".to_owned())));
        for text in ["${", "${A", "${}", "${A B}", "${1}"] {
            assert_eq!(interpolate(text, look_up), Err(ReferenceError::Malformed), "{text}");
        }
    }
}
