//! What the text of one value means: durations, sizes in bytes, yes or no.
//!
//! Always: an error says the rule, so that the caller only adds the place and the key.

use std::time::Duration;

const DURATION_RULE: &str = "must be a duration like 500ms, 60s, 1h30m or 7d, or a whole number of seconds";
const BYTES_RULE: &str = "must be a size like 512KiB, 64MiB or 2GiB, or a whole number of bytes";

/// Reads `60`, `60s`, `1m`, `1h30m`, `500ms`, `90d`; a number without a unit is seconds.
///
/// # Errors
/// The rule, and what is wrong: not a duration, negative, or beyond what can be counted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(format!("must not be negative, but is {}", shown(text)));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return text.parse().map(Duration::from_secs).map_err(|_| too_large(text));
    }
    let wrong = || format!("{DURATION_RULE}, but is {}", shown(text));
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, behind) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let (unit, behind) = behind.split_at(behind.bytes().take_while(u8::is_ascii_alphabetic).count());
        if digits.is_empty() {
            return Err(wrong());
        }
        let count: u64 = digits.parse().map_err(|_| too_large(text))?;
        let seconds_each: u64 = match unit {
            "ms" => 0,
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let part = match seconds_each {
            0 => Some(Duration::from_millis(count)),
            each => count.checked_mul(each).map(Duration::from_secs),
        };
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(|| too_large(text))?;
        rest = behind;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Reads `2147483648`, `2GiB`, `64MiB`, `512KiB` or `100B`.
///
/// # Errors
/// The rule, and what is wrong: not a size, negative, or beyond what can be counted.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    if text.starts_with('-') {
        return Err(format!("must not be negative, but is {}", shown(text)));
    }
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("{BYTES_RULE}, but is {}", shown(text))),
    };
    if digits.is_empty() {
        return Err(format!("{BYTES_RULE}, but is {}", shown(text)));
    }
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift)).ok_or_else(|| too_large(text))
}

/// Reads true, yes, on, 1 and false, no, off, 0, in any case.
///
/// # Errors
/// The rule.
pub fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("must be true or false, but is {}", shown(text))),
    }
}

/// Writes a duration as people do: `10m`, `1h30m`, `500ms`; [`parse_duration`] reads it back.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()), "ms"),
    ];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Writes a size in the largest unit that divides it: `2GiB`, `16KiB`, `1000B`; [`parse_bytes`] reads it back.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let (shift, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .unwrap_or((0, "B"));
    format!("{}{unit}", bytes >> shift)
}

/// A value for a message: in quotes, escaped and cut, so that no input can fill the log or paint the terminal.
pub(crate) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

fn too_large(text: &str) -> String {
    format!("is too large a number: {}", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_mean_what_they_say() {
        for (text, milliseconds) in [
            ("60s", 60_000),
            ("1m", 60_000),
            ("60", 60_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m500ms", 60_500),
            ("90d", 7_776_000_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_rule() {
        for text in
            ["", "s", "60.0", "1.5h", "60 s", "60S", "1y", "five", "60s!", "+60", "١s", "0x10", "1e3", "6_0"]
        {
            let error = parse_duration(text).unwrap_err();
            assert!(error.starts_with("must be a duration like"), "{text}: {error}");
        }
        assert_eq!(parse_duration("-5s").unwrap_err(), "must not be negative, but is \"-5s\"");
        for text in [
            "99999999999999999999",
            "99999999999999999999s",
            "18446744073709551615d",
            "18446744073709551615s1s",
        ] {
            assert!(parse_duration(text).unwrap_err().contains("too large"), "{text}");
        }
    }

    #[test]
    fn sizes_mean_what_they_say() {
        for (text, bytes) in [
            ("2GiB", 2 << 30),
            ("2147483648", 2 << 30),
            ("16 KiB", 16384),
            ("1MiB", 1 << 20),
            ("7B", 7),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "2GB", "2gib", "1.5GiB", "two", "0x10"] {
            assert!(parse_bytes(text).unwrap_err().starts_with("must be a size like"), "{text}");
        }
        assert!(parse_bytes("99999999TiB").unwrap_err().contains("too large"));
        assert!(parse_bytes("-1").unwrap_err().contains("negative"));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for text in ["1d2h3m4s5ms", "10m", "500ms", "0s", "1h30m"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["2GiB", "1MiB", "16KiB", "1000B", "0B", "3TiB"] {
            assert_eq!(show_bytes(parse_bytes(text).unwrap()), text);
        }
    }

    #[test]
    fn booleans_take_the_older_words() {
        for text in ["true", "True", "YES", "on", "1"] {
            assert_eq!(parse_boolean(text), Ok(true), "{text}");
        }
        for text in ["false", "No", "off", "0"] {
            assert_eq!(parse_boolean(text), Ok(false), "{text}");
        }
        assert_eq!(parse_boolean("maybe").unwrap_err(), "must be true or false, but is \"maybe\"");
    }

    #[test]
    fn shown_values_are_escaped_and_cut() {
        assert_eq!(shown("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
        assert!(shown(&"x".repeat(1000)).len() < 80);
    }
}
