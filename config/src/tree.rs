//! A YAML document as it was written: every key in order, doubled ones too, each with its line.
//!
//! In: text. Out: [`Document`]. Always: bounded depth and, with aliases refused, never larger than its text.
//! Never: decides what a value means; a scalar keeps its own spelling, so a host called `no` or `0123` stays one.

use crate::remark::Mistakes;
use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Deepest nesting that is read; the deepest key of ours stands at 3.
const MAX_DEPTH: usize = 16;

/// A value with the line it begins at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value: `key:`, `~` or `null`.
    Null,
    /// Text, a number, true or false, as it was spelled.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with values, doubled keys included, in the order of the file.
    Map(Vec<Entry>),
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's line, from 1.
    pub line: usize,
    /// The value.
    pub node: Node,
}

impl Value {
    /// What this is called in a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a block of keys",
        }
    }
}

/// A whole file, parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file as it is named in messages.
    pub file: String,
    /// The root; [`Value::Null`] for an empty file.
    pub root: Node,
}

impl Document {
    /// The document of a file that is not there.
    #[must_use]
    pub fn empty(file: impl Into<String>) -> Self {
        Self { file: file.into(), root: Node { line: 1, value: Value::Null } }
    }

    /// Parses `text`; `file` is its name in messages.
    ///
    /// # Errors
    /// One mistake with its line: no YAML, more than one document, nested too deep, or something that a configuration
    /// has no use for (aliases, tags, keys that are lists or blocks).
    pub fn parse(text: &str, file: impl Into<String>) -> Result<Self, Mistakes> {
        let file = file.into();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match build(text) {
            Ok(root) => Ok(Self { file, root }),
            Err((line, text)) => Err(Mistakes::in_file(&file, line, text)),
        }
    }

    /// The keys at the top; none if the root is no block of keys.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.root.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }
}

type Failure = (Option<usize>, String);

fn build(text: &str) -> Result<Node, Failure> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder { events: Parser::new_from_str_with_options(text, options), text };
    let mut root = None;
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(..) if root.is_none() => {
                let (event, span) = builder.next()?;
                root = Some(builder.node(event, span, 0)?);
            }
            _ => {
                let text =
                    "a second YAML document begins here; a configuration is one document, remove the \"---\"";
                return Err((Some(span.start.line()), text.to_owned()));
            }
        }
    }
    Ok(root.unwrap_or(Node { line: 1, value: Value::Null }))
}

struct Builder<'t, I: Iterator> {
    events: I,
    text: &'t str,
}

impl<'t, I> Builder<'t, I>
where
    I: Iterator<Item = Result<(Event<'t>, Span), granit_parser::ScanError>>,
{
    fn next(&mut self) -> Result<(Event<'t>, Span), Failure> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let line = error.marker().line();
                let about: String =
                    error.info().chars().filter(|character| !character.is_control()).collect();
                let begins_with_tab = self
                    .text
                    .lines()
                    .nth(line.saturating_sub(1))
                    .is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
                let hint =
                    if begins_with_tab { "; YAML is indented with spaces, never with tabs" } else { "" };
                Err((Some(line), format!("is not valid YAML: {about}{hint}")))
            }
            None => Err((None, "is not valid YAML: it ends too early".to_owned())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Failure> {
        let line = span.start.line();
        let fail = |text: &str| Err((Some(line), text.to_owned()));
        if depth > MAX_DEPTH {
            return fail("is nested too deep");
        }
        if event.tag().is_some() {
            return fail("tags (!name) are not read in a configuration; write the value without one");
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let null = matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                if null && style == ScalarStyle::Plain {
                    Value::Null
                } else {
                    Value::Scalar(text.into_owned())
                }
            }
            Event::SequenceStart(..) => {
                let mut nodes = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(nodes),
                        (event, span) => nodes.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    let (event, span) = match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(entries),
                        next => next,
                    };
                    let key = self.node(event, span, depth + 1)?;
                    let Value::Scalar(name) = key.value else {
                        let text = format!("a key must be a word, but this one is {}", key.value.kind());
                        return Err((Some(key.line), text));
                    };
                    let (event, span) = self.next()?;
                    entries.push(Entry {
                        key: name,
                        line: key.line,
                        node: self.node(event, span, depth + 1)?,
                    });
                }
            }
            // Refused, not expanded: no configuration of ours needs them, and no bomb can be made of them.
            Event::Alias(_) => {
                return fail("aliases (*name) are not read in a configuration; write the value itself");
            }
            _ => return fail("is not valid YAML: a value is missing"),
        };
        Ok(Node { line, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, Mistakes> {
        Document::parse(text, "f.yaml")
    }

    fn scalar(line: usize, text: &str) -> Node {
        Node { line, value: Value::Scalar(text.to_owned()) }
    }

    #[test]
    fn keys_keep_order_lines_and_doubles() {
        let document = parse("# first\nb: 1\na: {c: 0123}\nb: no\n").unwrap();
        let entries = document.entries();
        assert_eq!(entries[0], Entry { key: "b".into(), line: 2, node: scalar(2, "1") });
        assert_eq!(entries[2], Entry { key: "b".into(), line: 4, node: scalar(4, "no") });
        let inner = Entry { key: "c".into(), line: 3, node: scalar(3, "0123") };
        assert_eq!(entries[1].node.value, Value::Map(vec![inner]));
    }

    #[test]
    fn empty_files_have_no_keys() {
        for text in ["", "\n", "# only a comment\n", "---\n", "~\n", "\u{feff}", "---\n...\n"] {
            assert_eq!(parse(text).unwrap().root.value, Value::Null, "{text:?}");
        }
        assert_eq!(parse("{}").unwrap().root.value, Value::Map(vec![]));
    }

    #[test]
    fn byte_order_mark_and_dos_line_ends_are_no_part_of_a_value() {
        let document = parse("\u{feff}a: 1\r\nb: two\r\n").unwrap();
        assert_eq!(document.entries()[0], Entry { key: "a".into(), line: 1, node: scalar(1, "1") });
        assert_eq!(document.entries()[1], Entry { key: "b".into(), line: 2, node: scalar(2, "two") });
    }

    #[test]
    fn null_is_only_null_without_quotes() {
        let document = parse("a:\nb: ~\nc: null\nd: \"null\"\ne: ''\n").unwrap();
        let values: Vec<_> = document.entries().iter().map(|entry| entry.node.value.clone()).collect();
        let text = |text: &str| Value::Scalar(text.to_owned());
        assert_eq!(values, [Value::Null, Value::Null, Value::Null, text("null"), text("")]);
    }

    #[test]
    fn tabs_are_named() {
        let mistake = parse("a:\n\tb: 1\n").unwrap_err().to_string();
        assert!(mistake.starts_with("f.yaml:2: is not valid YAML"), "{mistake}");
        assert!(mistake.contains("never with tabs"), "{mistake}");
    }

    #[test]
    fn aliases_tags_and_keys_that_are_no_words_are_refused_with_their_line() {
        for (text, line, about) in [
            ("a: &x 1\nb: *x\n", 2, "aliases"),
            ("a: 1\nb: !secret x\n", 2, "tags"),
            ("a: !!str x\n", 1, "tags"),
            ("? [a, b]\n: 1\n", 1, "a list"),
            ("{a: b}: 1\n", 1, "a block of keys"),
            ("a: 1\n: 2\n", 2, "nothing"),
            ("a: 1\n---\nb: 2\n", 2, "second YAML document"),
        ] {
            let mistake = parse(text).unwrap_err().to_string();
            assert!(mistake.starts_with(&format!("f.yaml:{line}: ")), "{text:?}: {mistake}");
            assert!(mistake.contains(about), "{text:?}: {mistake}");
        }
    }

    #[test]
    fn alias_bomb_is_refused_at_its_first_alias() {
        let mut bomb = "a0: &a0 [lol, lol, lol]\n".to_owned();
        for level in 1..60 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().to_string().starts_with("f.yaml:2: aliases"));
    }

    #[test]
    fn a_hundred_kilobytes_of_nesting_are_refused() {
        for text in [
            "[".repeat(100_000),
            "{a: ".repeat(25_000),
            "- ".repeat(50_000),
            "? ".repeat(50_000),
            "[{a: ".repeat(20_000),
        ] {
            assert!(parse(&text).is_err());
        }
        let deep: String = (0..400).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn broken_texts_are_mistakes_and_never_panics() {
        for text in [
            "a: [1, 2",
            "a: \"open",
            "a: b: c",
            "@",
            "%YAML 9.9\n",
            "a:\n  - b\n c: d",
            "\0",
            "a: \u{1b}",
            "*x",
            "&a",
        ] {
            if let Err(mistakes) = parse(text) {
                assert!(mistakes.to_string().starts_with("f.yaml"), "{mistakes}");
            }
        }
    }
}
