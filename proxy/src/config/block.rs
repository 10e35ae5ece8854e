//! The `pulse_control_plane` block, added to a configuration file for a person who registers the host.
//!
//! In: the file's text. Out: the same text, byte for byte, with the block behind it.
//! Always: the result was parsed again and holds what was there before and the block, or it is not given out.
//! Never: changes, moves or removes what a person wrote.

use super::ServerUrl;
use pulse_config::{Document, Entry, Mistakes, Value};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const KEY: &str = "pulse_control_plane";

/// What is written into the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlaneBlock {
    /// The server.
    pub url: ServerUrl,
    /// Where the token stands.
    pub token_file: PathBuf,
    /// Certificates to trust instead of the system's roots, if needed.
    pub ca_file: Option<PathBuf>,
}

/// Why the block was not added. The text says what to do by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddBlockError {
    /// The file has mistakes of its own.
    #[error("{0}")]
    Unreadable(Mistakes),
    /// Text behind what is there would change its meaning, or the block is there without a value.
    #[error(
        "the block cannot be added to {file} without changing what is there; write this into it by hand:\n{block}"
    )]
    ByHand {
        /// The file.
        file: String,
        /// The block, as it belongs there.
        block: String,
    },
    /// A path cannot be written into a text file.
    #[error("the path {0:?} is not UTF-8 and cannot stand in a configuration file; choose another")]
    Path(PathBuf),
}

/// Gives `config_text` with the block behind it; `None` if a block with a value is there already.
///
/// `file` is the file's name in messages. A block that is only a comment does not count.
///
/// # Errors
/// [`AddBlockError`]: nothing can be added, and what to do instead.
pub fn add_control_plane_block(
    config_text: &str,
    block: &ControlPlaneBlock,
    file: &str,
) -> Result<Option<String>, AddBlockError> {
    let before = Document::parse(config_text, file).map_err(AddBlockError::Unreadable)?;
    let there = before.entries().iter().filter(|entry| entry.key == KEY);
    let values: Vec<bool> = there.map(|entry| entry.node.value != Value::Null).collect();
    if values.contains(&true) {
        return Ok(None);
    }
    let written = block.written()?;
    let by_hand = || AddBlockError::ByHand { file: file.to_owned(), block: written.clone() };
    if !values.is_empty() {
        return Err(by_hand());
    }
    let line_end = if config_text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut text = config_text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(line_end);
    }
    text.push_str(&written.replace('\n', line_end));
    let after = Document::parse(&text, file).map_err(|_| by_hand())?;
    let expected = Document::parse(&written, file).map_err(|_| by_hand())?;
    match after.entries() {
        [kept @ .., added] if kept == before.entries() && is_same(added, expected.entries()) => {
            Ok(Some(text))
        }
        _ => Err(by_hand()),
    }
}

impl ControlPlaneBlock {
    fn written(&self) -> Result<String, AddBlockError> {
        let mut text = format!("{KEY}:\n  url: {}\n", self.url);
        let token_file = Some(("token_file", &self.token_file));
        for (key, path) in token_file.into_iter().chain(self.ca_file.as_ref().map(|path| ("ca_file", path))) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {key}: {}", quoted(path)?);
        }
        Ok(text)
    }
}

/// A path as a YAML scalar: bare if nothing in it has a meaning, else in double quotes, whose escapes are JSON's.
fn quoted(path: &Path) -> Result<String, AddBlockError> {
    let text = path.to_str().ok_or_else(|| AddBlockError::Path(path.to_owned()))?;
    let bare =
        text.starts_with('/') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b));
    Ok(if bare { text.to_owned() } else { serde_json::Value::from(text).to_string() })
}

/// Whether both are the same but for their lines.
fn is_same(added: &Entry, expected: &[Entry]) -> bool {
    let scalars = |entry: &Entry| match &entry.node.value {
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), entry.node.value.clone())).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    matches!(expected, [expected] if added.key == expected.key && scalars(added) == scalars(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> ControlPlaneBlock {
        ControlPlaneBlock {
            url: "https://pulse.lan:7655".parse().expect("an address"),
            token_file: "/etc/pulse-sensor-proxy/.pulse-control-token".into(),
            ca_file: None,
        }
    }

    const WRITTEN: &str = "pulse_control_plane:\n  url: https://pulse.lan:7655\n  token_file: /etc/pulse-sensor-proxy/.pulse-control-token\n";

    fn add(text: &str) -> Result<Option<String>, AddBlockError> {
        add_control_plane_block(text, &block(), "c.yaml")
    }

    #[test]
    fn block_is_added_behind_what_is_there() {
        for text in [
            "",
            "# only a comment\n",
            "log_level: debug\n",
            "log_level: debug",
            "# pulse_control_plane:\n#   url: https://old:7655\nlog_level: info\n\n\n",
            "sensors:\n  sysfs_root: /tmp\n",
            "allowed_nodes:\n- a\n- b\n",
            "allowed_nodes: [a]\nallowed_nodes: [b]\n",
            "\u{feff}log_level: debug\n",
            "---\nlog_level: debug\n",
            "this_node: >\n  delly\n",
        ] {
            let added = add(text).unwrap().unwrap();
            assert!(added.starts_with(text) && added.ends_with(WRITTEN), "{added:?}");
            assert_eq!(add(&added), Ok(None), "a second time adds nothing");
        }
    }

    #[test]
    fn line_ends_are_those_of_the_file() {
        let added = add("log_level: debug\r\n").unwrap().unwrap();
        assert_eq!(added, format!("log_level: debug\r\n{}", WRITTEN.replace('\n', "\r\n")));
    }

    #[test]
    fn block_that_is_there_stays_as_it_is() {
        for text in [
            "pulse_control_plane:\n  url: https://other:1\n",
            "{pulse_control_plane: {url: 'https://x'}}",
            "pulse_control_plane: 1\n",
        ] {
            assert_eq!(add(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn where_nothing_can_be_added_the_way_out_is_told() {
        for text in [
            "{}",
            "{log_level: debug}\n",
            "pulse_control_plane:\n",
            "  log_level: debug\n",
            "log_level: debug\n...\n",
            "- a\n",
            "words\n",
        ] {
            let error = add(text).unwrap_err().to_string();
            assert!(error.contains("by hand") && error.ends_with(WRITTEN), "{text:?}: {error}");
        }
        assert!(add("a: [").unwrap_err().to_string().starts_with("c.yaml:"));
    }

    #[test]
    fn strange_paths_are_quoted() {
        let paths = ["/a b/#c: \"d\"/é", "/back\\slash\n", "/{x}"];
        for path in paths {
            let block = ControlPlaneBlock { token_file: path.into(), ca_file: Some(path.into()), ..block() };
            let text = add_control_plane_block("", &block, "c.yaml").unwrap().unwrap();
            let document = Document::parse(&text, "c.yaml").unwrap();
            let Value::Map(entries) = &document.entries()[0].node.value else { panic!("a block") };
            assert_eq!(entries[1].node.value, Value::Scalar(path.to_owned()));
            assert_eq!(entries[2].node.value, Value::Scalar(path.to_owned()));
        }
    }
}
