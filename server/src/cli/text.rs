//! Text for a terminal: aligned tables, durations as people say them, and nothing that could paint the screen.
//!
//! Always: what came over the network is escaped; a missing value is `-`.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// Rows of cells, aligned to the left, two spaces between the columns.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new<const N: usize>(header: [&str; N]) -> Table {
        Table { rows: vec![header.map(str::to_owned).into()] }
    }

    /// Lines of a name and its value, without a header.
    pub(super) fn plain() -> Table {
        Table { rows: Vec::new() }
    }

    /// Adds a row. Cells are escaped here, so that nobody forgets it.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| clean(&cell)).into());
    }

    /// The lines, without trailing spaces.
    pub(super) fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A text that can do nothing to a terminal: control characters, direction marks and the like are escaped.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // `escape_debug` would escape these too, but they are harmless here.
            '"' | '\'' | '\\' => cleaned.push(c),
            c => cleaned.extend(c.escape_debug()),
        }
    }
    cleaned
}

/// [`clean`], but keeps the line breaks.
pub(super) fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// A duration as people say it: in one unit, seconds begun, larger ones rounded.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0 s".to_owned(),
        0 => format!("{} ms", duration.as_millis().max(1)),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", (seconds + 30) / 60),
        7200..=172_799 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} d", (seconds + 43_200) / 86_400),
    }
}

/// How long ago something was: `3 s ago`, or, with a clock that is ahead, `in 3 s`.
pub(super) fn ago(at: impl Into<SystemTime>, now: SystemTime) -> String {
    let at = at.into();
    let within = |duration: Duration| duration < Duration::from_secs(1);
    match now.duration_since(at) {
        Ok(since) if within(since) => "now".to_owned(),
        Ok(since) => format!("{} ago", span(since)),
        Err(ahead) if within(ahead.duration()) => "now".to_owned(),
        Err(ahead) => format!("in {}", span(ahead.duration())),
    }
}

/// A number of seconds from JSON as a duration; what is no duration is 0.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A time, in full: `2026-01-02 03:04:05Z`.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `1 node`, `2 nodes`.
pub(super) fn count(number: usize, thing: &str) -> String {
    let plural = match thing.strip_suffix('y') {
        _ if number == 1 => thing.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{thing}s"),
    };
    format!("{number} {plural}")
}

/// `-` for what is not there.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// JSON for people and programs, over several lines.
pub(super) fn json(value: &Value) -> String {
    escaped(&format!("{value:#}\n"))
}

/// JSON in one line.
pub(super) fn json_line(value: &Value) -> String {
    escaped(&format!("{value}\n"))
}

/// JSON escapes the control characters of ASCII itself; those of Unicode can stand only within its strings, where
/// `\uXXXX` means the same.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' || c.escape_debug().count() == 1 {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "NODES", ""]);
        table.row(["häuschen".into(), "2".into(), "x".into()]);
        table.row(["a".into(), "10".into(), String::new()]);
        assert_eq!(table.render(), "NAME      NODES\nhäuschen  2      x\na         10\n");
    }

    #[test]
    fn nothing_from_the_network_paints_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\u{1b}[2J\n\u{9b}31m\u{202e}\u{200b}\t\"it's\" ü".into()]);
        let text = table.render();
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, r#"a\u{1b}[2J\n\u{9b}31m\u{202e}\u{200b}\t"it's" ü"#);
        let json = json_line(&json!({"name": "a\u{1b}\u{9b}\u{202e}\u{7f}ü\u{e0001}"}));
        assert!(json.chars().all(|c| c == '\n' || !c.is_control()), "{json:?}");
        assert!(!json.contains(['\u{202e}', '\u{e0001}']) && json.contains('ü'));
        let back: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["name"], "a\u{1b}\u{9b}\u{202e}\u{7f}ü\u{e0001}");
    }

    #[test]
    fn durations_are_said_in_their_largest_unit() {
        for (milliseconds, said) in [
            (0, "0 s"),
            (40, "40 ms"),
            (3_999, "3 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (7_199_000, "120 min"),
            (7_200_000, "2 h"),
            (86_399_000, "24 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(span(Duration::from_millis(milliseconds)), said);
        }
    }

    #[test]
    fn times_are_said_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let before = |milliseconds| ago(now - Duration::from_millis(milliseconds), now);
        assert_eq!(before(3_200), "3 s ago");
        assert_eq!(before(900), "now");
        assert_eq!(ago(now + Duration::from_millis(900), now), "now");
        assert_eq!(ago(now + Duration::from_secs(90_000), now), "in 25 h");
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(time(jiff::Timestamp::from_second(1_767_323_045).unwrap()), "2026-01-02 03:04:05Z");
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(
            (count(1, "node"), count(0, "node"), count(2, "proxy")),
            ("1 node".into(), "0 nodes".into(), "2 proxies".into())
        );
    }
}
