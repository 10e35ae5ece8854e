//! The walk over a document: a closure names each key and its type once, and every mistake is collected on the way.
//!
//! In: a [`Document`], the [`Environment`] and a prefix. Out: what the closure builds, with warnings, or [`Mistakes`].
//! Always: the environment (`PREFIX_` + the key's path in capitals) goes before the file, and both are checked;
//! keys that the closure did not name are mistakes, with the nearest name it knows.

use crate::environment::Environment;
use crate::quantity::{parse_boolean, parse_bytes, parse_duration, show_bytes, show_duration, shown};
use crate::remark::{Mistakes, Place, Remark, Warning};
use crate::tree::{Document, Entry, Node, Value};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// What a walk without mistakes brings home.
#[derive(Clone, Debug)]
pub struct Reading<T> {
    /// What the closure built.
    pub value: T,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// The path of every key that the closure named, in that order: what a complete sample file holds.
    pub known_keys: Vec<String>,
}

/// Walks `document` with `build`, which names every key there is.
///
/// # Errors
/// All mistakes of the file and of the environment, in the order in which `build` names the keys.
pub fn read<T>(
    document: &Document,
    environment: &Environment,
    prefix: &str,
    build: impl FnOnce(&mut Section<'_, '_>) -> T,
) -> Result<Reading<T>, Mistakes> {
    let mut walk =
        Walk { file: &document.file, environment, prefix, mistakes: vec![], warnings: vec![], known: vec![] };
    let mut root =
        Section { walk: &mut walk, entries: vec![], path: String::new(), names: vec![], retired: vec![] };
    root.open(&document.root);
    let value = build(&mut root);
    root.refuse_unknown();
    match walk.mistakes.is_empty() {
        true => Ok(Reading { value, warnings: walk.warnings, known_keys: walk.known }),
        false => Err(Mistakes::new(walk.mistakes)),
    }
}

/// The one of `known` that `word` was most likely meant to be, if any is near.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&word, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

struct Walk<'d> {
    file: &'d str,
    environment: &'d Environment,
    prefix: &'d str,
    mistakes: Vec<Remark>,
    warnings: Vec<Remark>,
    known: Vec<String>,
}

/// A block of keys: the whole file, or what stands below one key.
///
/// Every reader takes a key and gives `None` if it has no value, or a wrong one, which is then noted: the caller goes
/// on with its default, and the walk as a whole fails in the end.
pub struct Section<'w, 'd> {
    walk: &'w mut Walk<'d>,
    entries: Vec<&'d Entry>,
    path: String,
    names: Vec<String>,
    retired: Vec<String>,
}

impl<'d> Section<'_, 'd> {
    /// Reads one value with `parse`, which gets it trimmed and answers with the rule if it breaks one.
    pub fn value<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let from_file = match self.entry(key) {
            Some(Entry { node: Node { line, value: Value::Scalar(text) }, .. }) => {
                let parsed = parse(text.trim());
                self.noted(parsed, self.in_file(*line), key)
            }
            Some(Entry { node, .. }) => {
                self.wrong_kind(key, node, "must be a single value");
                None
            }
            None => None,
        };
        let from_environment = self.variable(key).and_then(|(name, text)| {
            let parsed = parse(text.trim());
            self.noted(parsed, Place::Variable(name), key)
        });
        from_environment.or(from_file)
    }

    /// Reads a text; an empty one is as if it were not there.
    pub fn string(&mut self, key: &str) -> Option<String> {
        self.value(key, |text| Ok(text.to_owned())).filter(|text| !text.is_empty())
    }

    /// Reads an absolute path; an empty one is as if it were not there.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.value(key, |text| match PathBuf::from(text) {
            path if path.is_absolute() || text.is_empty() => Ok(path),
            // Not repeated: what stands here by mistake may be the secret itself.
            _ => Err("must be an absolute path (beginning with /)".to_owned()),
        });
        path.filter(|path| !path.as_os_str().is_empty())
    }

    /// Reads true or false.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        self.value(key, parse_boolean)
    }

    /// Reads a whole number within `range`.
    pub fn integer(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(key, |text| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            let rule = || format!("must be a whole number from {} to {}", range.start(), range.end());
            number
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("{}, but is {}", rule(), shown(text)))
        })
    }

    /// Reads a size in bytes within `range`.
    pub fn bytes(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(key, |text| within(parse_bytes(text)?, &range, |bytes| show_bytes(*bytes)))
    }

    /// Reads a duration within `range`.
    pub fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.value(key, |text| within(parse_duration(text)?, &range, |duration| show_duration(*duration)))
    }

    /// Reads one of the words in `choices`, in any case.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.value(key, |text| {
            let chosen = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
            chosen.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                let hint = nearest(text, words.iter().copied()).map(|word| format!("; did you mean {word}?"));
                format!(
                    "must be one of {}, but is {}{}",
                    words.join(", "),
                    shown(text),
                    hint.unwrap_or_default()
                )
            })
        })
    }

    /// Reads a list, each entry with `parse`; a single value is a list of one, and in the environment commas part the
    /// entries. Empty entries are left out.
    pub fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let from_file = self.entry(key).map(|entry| self.items(entry, &parse));
        let from_environment =
            self.variable(key).map(|variable| self.items_of_variable(variable, key, &parse));
        from_environment.or(from_file)
    }

    /// Reads a list as [`list`](Self::list) does, but joins what else would replace or contradict: every block of that
    /// name, and the environment.
    pub fn union<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut all = Vec::new();
        for entry in self.entries_of(key) {
            if entry.node.value != Value::Null {
                all.extend(self.items(entry, &parse));
            }
        }
        if let Some(variable) = self.variable(key) {
            all.extend(self.items_of_variable(variable, key, &parse));
        }
        all
    }

    /// Reads the block below `key`. `build` runs even if it is not there, because the environment may fill it.
    pub fn section<T>(&mut self, key: &str, build: impl FnOnce(&mut Section<'_, 'd>) -> T) -> T {
        let node = self.entry(key).map(|entry| &entry.node);
        // Only its keys are settings.
        self.walk.known.pop();
        let path = format!("{}{key}.", self.path);
        let mut section = Section { walk: self.walk, entries: vec![], path, names: vec![], retired: vec![] };
        if let Some(node) = node {
            section.open(node);
        }
        let value = build(&mut section);
        section.refuse_unknown();
        value
    }

    /// Takes a key of an older version, whatever its value, and the variables that went with it; one warning says
    /// `text` if any of them is there.
    pub fn retired(&mut self, key: &str, variables: &[&str], text: &str) {
        self.retired.push(key.to_owned());
        let entry = self.entries.iter().find(|entry| entry.key == key).map(|entry| self.in_file(entry.line));
        let set = |name: &&&str| self.walk.environment.value(name).is_some();
        let variable = variables.iter().find(set).map(|name| Place::Variable((*name).to_owned()));
        if let Some(place) = entry.or(variable) {
            self.walk.warnings.push(Remark { place, key: self.path_of(key), text: text.to_owned() });
        }
    }

    /// Whether the file or the environment gives `key` a value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// Whether the file has any key in this block.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Notes a mistake about `key` that no single value shows.
    pub fn refuse(&mut self, key: &str, text: impl Into<String>) {
        let place = self.place(key).unwrap_or_else(|| self.whole_file());
        self.walk.mistakes.push(Remark { place, key: self.path_of(key), text: text.into() });
    }

    /// Notes something about `key` that the operator should know.
    pub fn warn(&mut self, key: &str, text: impl Into<String>) {
        let place = self.place(key).unwrap_or_else(|| self.whole_file());
        self.walk.warnings.push(Remark { place, key: self.path_of(key), text: text.into() });
    }

    fn open(&mut self, node: &'d Node) {
        match &node.value {
            Value::Map(entries) => self.entries = entries.iter().collect(),
            Value::Null => {}
            other => {
                let text = format!("must be a block of keys, but is {}", other.kind());
                let key = self.path.trim_end_matches('.').to_owned();
                self.walk.mistakes.push(Remark { place: self.in_file(node.line), key, text });
            }
        }
    }

    fn refuse_unknown(&mut self) {
        for entry in &self.entries {
            if self.names.contains(&entry.key) || self.retired.contains(&entry.key) {
                continue;
            }
            let text = match nearest(&entry.key, self.names.iter().chain(&self.retired).map(String::as_str)) {
                Some(name) => format!("unknown key; did you mean {name}?"),
                None => format!("unknown key; known here: {}", self.names.join(", ")),
            };
            let key = self.path_of(&shown_key(&entry.key));
            self.walk.mistakes.push(Remark { place: self.in_file(entry.line), key, text });
        }
    }

    /// All entries of that name, which is known from now on.
    fn entries_of(&mut self, key: &str) -> Vec<&'d Entry> {
        self.names.push(key.to_owned());
        self.walk.known.push(self.path_of(key));
        self.entries.iter().copied().filter(|entry| entry.key == key).collect()
    }

    /// The one entry of that name that has a value; a second one is a mistake.
    fn entry(&mut self, key: &str) -> Option<&'d Entry> {
        let entries = self.entries_of(key);
        if let [first, again, ..] = entries[..] {
            let text =
                format!("stands here a second time, first in line {}; keep one of the two", first.line);
            self.walk.mistakes.push(Remark { place: self.in_file(again.line), key: self.path_of(key), text });
        }
        entries.first().copied().filter(|entry| entry.node.value != Value::Null)
    }

    fn items<T>(&mut self, entry: &'d Entry, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let nodes = match &entry.node.value {
            Value::List(nodes) => nodes.as_slice(),
            Value::Map(_) => {
                self.wrong_kind(&entry.key, &entry.node, "must be a list");
                &[]
            }
            Value::Scalar(_) | Value::Null => std::slice::from_ref(&entry.node),
        };
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            match &node.value {
                Value::Scalar(text) if !text.trim().is_empty() => {
                    items.extend(self.noted(parse(text.trim()), self.in_file(node.line), &entry.key));
                }
                Value::Scalar(_) | Value::Null => {}
                _ => self.wrong_kind(&entry.key, node, "each entry must be a single value"),
            }
        }
        items
    }

    fn items_of_variable<T>(
        &mut self,
        (name, text): (String, String),
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.filter_map(|text| self.noted(parse(text), Place::Variable(name.clone()), key)).collect()
    }

    fn variable(&mut self, key: &str) -> Option<(String, String)> {
        let name = self.variable_name(key);
        let value = self.walk.environment.value(&name)?;
        if let Some(text) = value.to_str() {
            return Some((name, text.to_owned()));
        }
        let remark = Remark {
            place: Place::Variable(name),
            key: self.path_of(key),
            text: "is not UTF-8 text".to_owned(),
        };
        self.walk.mistakes.push(remark);
        None
    }

    fn variable_name(&self, key: &str) -> String {
        format!("{}{}", self.walk.prefix, self.path_of(key).to_uppercase().replace('.', "_"))
    }

    fn noted<T>(&mut self, parsed: Result<T, String>, place: Place, key: &str) -> Option<T> {
        parsed.map_err(|text| self.walk.mistakes.push(Remark { place, key: self.path_of(key), text })).ok()
    }

    fn wrong_kind(&mut self, key: &str, node: &Node, rule: &str) {
        let text = format!("{rule}, but is {}", node.value.kind());
        self.walk.mistakes.push(Remark { place: self.in_file(node.line), key: self.path_of(key), text });
    }

    fn place(&self, key: &str) -> Option<Place> {
        let name = self.variable_name(key);
        if self.walk.environment.value(&name).is_some() {
            return Some(Place::Variable(name));
        }
        let entry = self.entries.iter().find(|entry| entry.key == key && entry.node.value != Value::Null)?;
        Some(self.in_file(entry.line))
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn in_file(&self, line: usize) -> Place {
        Place::File { file: self.walk.file.to_owned(), line: Some(line) }
    }

    fn whole_file(&self) -> Place {
        Place::File { file: self.walk.file.to_owned(), line: None }
    }
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("must be from {} to {}, but is {}", show(range.start()), show(range.end()), show(&value)))
}

/// A key of the file for a message: cut, and without what could paint the terminal.
fn shown_key(key: &str) -> String {
    key.chars().filter(|character| !character.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests;
