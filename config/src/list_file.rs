//! A file that lists nodes, in each form that there ever was: a block with the key `allowed_nodes`, a bare list, or
//! plain lines with `#` comments and an optional leading `-`.
//!
//! In: text. Out: its entries, all of them good ([`read_list_file`]) or each for itself ([`read_each_entry`]).
//! Always: both take the same text for the same form. Never: reads files, or guesses what an entry meant.

use crate::environment::Environment;
use crate::remark::Mistakes;
use crate::section::{nearest, read};
use crate::static_list::StaticEntry;
use crate::tree::{Document, Node, Value};

/// The key of the list.
const KEY: &str = "allowed_nodes";

/// The entries of a text, whether they are good or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// How they stand there.
    pub form: ListForm,
    /// In the order in which they stand there; empty ones are left out.
    pub entries: Vec<ListedEntry>,
}

/// How a text lists its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListForm {
    /// Below `allowed_nodes`, as often as that stands there; a configuration has other keys beside it.
    Block(Document),
    /// As a bare list of YAML.
    List,
    /// As plain lines; an empty text is one too.
    Lines,
}

/// One entry, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// The line, from 1.
    pub line: usize,
    /// What it is, or the rule that it breaks.
    pub entry: Result<StaticEntry, String>,
}

/// Reads the text of a file that lists nodes, in any of its forms; `file` is its name in messages.
///
/// # Errors
/// Every entry that is none, and every key that is unknown.
pub fn read_list_file(text: &str, file: &str) -> Result<Vec<StaticEntry>, Mistakes> {
    let Listed { form, entries } = read_each_entry(text, file)?;
    if let ListForm::Block(document) = form {
        return read(&document, &Environment::default(), "", |keys| keys.union(KEY, str::parse))
            .map(|reading| reading.value);
    }
    let mut good = Vec::new();
    let mut remarks = Vec::new();
    for ListedEntry { line, entry } in entries {
        match entry {
            Ok(entry) => good.push(entry),
            Err(rule) => remarks.extend(Mistakes::in_file(file, Some(line), rule).into_remarks()),
        }
    }
    if remarks.is_empty() { Ok(good) } else { Err(Mistakes::new(remarks)) }
}

/// Reads the entries of such a text one by one, so that a bad one leaves the others; keys beside the list are left to
/// the caller, as a whole configuration is such a text too.
///
/// # Errors
/// The text as a whole is damaged: what was begun as YAML is none.
pub fn read_each_entry(text: &str, file: &str) -> Result<Listed, Mistakes> {
    let (form, entries) = match Document::parse(text, file) {
        Ok(document) => match &document.root.value {
            Value::Map(_) => {
                let lists = document.entries().iter().filter(|entry| entry.key == KEY);
                let entries = lists.flat_map(|list| entries_of(&list.node)).collect();
                (ListForm::Block(document), entries)
            }
            Value::List(_) => (ListForm::List, entries_of(&document.root)),
            Value::Null => (ListForm::Lines, Vec::new()),
            Value::Scalar(_) => (ListForm::Lines, plain_lines(text)),
        },
        // Lines are no YAML, for example if a comment stands between two names: but what was begun as YAML is told as such.
        Err(mistakes) if looks_like_yaml(text) => return Err(mistakes),
        Err(_) => (ListForm::Lines, plain_lines(text)),
    };
    Ok(Listed { form, entries })
}

fn looks_like_yaml(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        let word = line.split_once(':').map(|(word, _)| word);
        line.starts_with(['[', '{']) && !line.ends_with(']')
            || word.is_some_and(|word| nearest(word, [KEY]).is_some())
    })
}

/// The entries of a list; a single value is a list of one.
fn entries_of(list: &Node) -> Vec<ListedEntry> {
    let nodes = match &list.value {
        Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(list),
    };
    let entries = nodes.iter().filter_map(|node| {
        let entry = match &node.value {
            Value::Scalar(text) if !text.trim().is_empty() => text.trim().parse(),
            Value::Scalar(_) | Value::Null => return None,
            other => Err(format!("each entry must be a single value, but is {}", other.kind())),
        };
        Some(ListedEntry { line: node.line, entry })
    });
    entries.collect()
}

fn plain_lines(text: &str) -> Vec<ListedEntry> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let entries = text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let entry = line.strip_prefix('-').unwrap_or(line).trim();
        (!entry.is_empty()).then(|| ListedEntry { line: index + 1, entry: entry.parse() })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_of_the_file_are_read() {
        for text in [
            "allowed_nodes:\n  - delly\n  - 10.0.0.0/24\n  - fd00::1\n",
            "allowed_nodes: [delly]\nallowed_nodes:\n- 10.0.0.0/24\n- fd00::1\n",
            "- delly\n- 10.0.0.0/24\n- fd00::1\n",
            "[delly, 10.0.0.0/24, 'fd00::1']\n",
            "delly\n10.0.0.0/24\nfd00::1\n",
            "# mine\ndelly # the first\n\n- 10.0.0.0/24\r\n  fd00::1\n",
            "\u{feff}delly\n-10.0.0.0/24\n#x\nfd00::1",
            "fd00::1\n# between\ndelly\n10.0.0.0/24\n",
        ] {
            let mut found: Vec<_> =
                read_list_file(text, "f").expect(text).iter().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(found, ["10.0.0.0/24", "delly", "fd00::1"], "{text:?}");
        }
        for text in ["", "# nothing\n", "allowed_nodes:\n", "[]", "allowed_nodes: []\n", "- \n"] {
            assert_eq!(read_list_file(text, "f"), Ok(vec![]), "{text:?}");
        }
    }

    #[test]
    fn mistakes_in_the_file_name_their_lines() {
        let mistakes = |text: &str| read_list_file(text, "f").unwrap_err().to_string();
        assert!(mistakes("delly\n*\na b\n").starts_with("f:2: node name \"*\""));
        assert_eq!(mistakes("delly\n*\na b\n").lines().count(), 2);
        assert!(mistakes("- [a]\n").starts_with("f:1: each entry must be a single value"));
        assert!(mistakes("allowed_node: [a]\n").contains("did you mean allowed_nodes?"));
        assert!(mistakes("allowed_nodes:\n\t- a\n").contains("tabs"));
        assert!(mistakes("allowed_nodes: [a, b\n").contains("not valid YAML"));
    }

    #[test]
    fn a_bad_entry_leaves_the_others_in_every_form() {
        for (text, good) in [
            (
                "log_level: info\nallowed_nodes: [delly, '*']\nallowed_nodes: 10.0.0.1\n",
                &["delly", "10.0.0.1"][..],
            ),
            ("- delly\n- '*'\n-\n- [a]\n", &["delly"]),
            ("delly\n*\n", &["delly"]),
            ("log_level: info\n", &[]),
        ] {
            let listed = read_each_entry(text, "f").expect(text);
            let entries = listed.entries.iter().filter_map(|listed| listed.entry.as_ref().ok());
            assert_eq!(entries.map(ToString::to_string).collect::<Vec<_>>(), good, "{text:?}");
            for listed in listed.entries.iter().filter(|listed| listed.entry.is_err()) {
                let rest = text.lines().nth(listed.line - 1).unwrap();
                assert!(rest.contains(['*', '[']), "{text:?}: line {}", listed.line);
            }
        }
        assert!(read_each_entry("allowed_nodes: [a, b\n", "f").is_err());
    }
}
