//! What a thing was and what it is, as the audit log has it: only what differs.
//!
//! In: the thing as it is shown, before and after. Out: one JSON object. Always: bounded, however long its lists are: the first
//! of what came and went, and how many there were. Never: knows what the thing is.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The most lines of one list that came, or went, that are shown.
pub const MAX_LINES: usize = 256;

/// The most lines of all lists in one row.
const MAX_LINES_OF_ROW: usize = 1_024;

/// The most things in one row.
const MAX_THINGS: usize = 256;

/// A thing as it may be shown: no secret, no digest, nothing sealed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Shown {
    /// Its fields.
    pub fields: Map<String, Value>,
    /// Its lists, of which only what comes and goes is shown.
    pub lists: Vec<(&'static str, BTreeSet<String>)>,
}

impl Shown {
    /// Of an object.
    #[must_use]
    pub fn of(fields: Value) -> Shown {
        let fields = match fields {
            Value::Object(fields) => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        Shown { fields, lists: Vec::new() }
    }

    /// With a list of lines.
    #[must_use]
    pub fn with_list(mut self, name: &'static str, lines: impl IntoIterator<Item = String>) -> Shown {
        self.lists.push((name, lines.into_iter().collect()));
        self
    }
}

/// What one change did to several things.
#[derive(Debug)]
pub struct Differences {
    shown: Vec<Value>,
    /// Those that are not shown.
    more: usize,
    lines_left: usize,
}

impl Default for Differences {
    fn default() -> Self {
        Differences { shown: Vec::new(), more: 0, lines_left: MAX_LINES_OF_ROW }
    }
}

impl Differences {
    /// Adds a thing; `None`: it was not there, or is no more. One of which nothing that is shown differs is named all the same, as
    /// something else of it did: the order of its nodes, a secret.
    pub fn add(&mut self, name: &str, before: Option<Shown>, after: Option<Shown>) {
        if self.shown.len() == MAX_THINGS {
            self.more += 1;
            return;
        }
        let differs = |one: &Option<Shown>, other: &Option<Shown>| {
            let one = one.as_ref()?;
            let differing = one.fields.iter().filter(|(key, value)| {
                other.as_ref().is_none_or(|other| other.fields.get(*key) != Some(value))
            });
            Some(Value::Object(differing.map(|(key, value)| (key.clone(), value.clone())).collect()))
        };
        let mut thing =
            json!({ "of": name, "before": differs(&before, &after), "after": differs(&after, &before) });
        let nothing = BTreeSet::new();
        let names: BTreeSet<&str> = [&before, &after]
            .into_iter()
            .flatten()
            .flat_map(|shown| shown.lists.iter().map(|(name, _)| *name))
            .collect();
        for name in names {
            let of = |shown: &'_ Option<Shown>| {
                let list = shown.iter().flat_map(|shown| &shown.lists).find(|(of, _)| *of == name);
                list.map(|(_, lines)| lines.clone())
            };
            let (had, has) = (of(&before), of(&after));
            let (had, has) = (had.as_ref().unwrap_or(&nothing), has.as_ref().unwrap_or(&nothing));
            let mut list = Map::new();
            self.part(&mut list, "added", has.difference(had));
            self.part(&mut list, "removed", had.difference(has));
            if !list.is_empty() {
                thing[name] = Value::Object(list);
            }
        }
        self.shown.push(thing);
    }

    fn part<'a>(
        &mut self,
        list: &mut Map<String, Value>,
        key: &str,
        lines: impl Iterator<Item = &'a String>,
    ) {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return;
        }
        let shown: Vec<&String> = lines.by_ref().take(MAX_LINES.min(self.lines_left)).collect();
        self.lines_left -= shown.len();
        let count = shown.len() + lines.count();
        if count > shown.len() {
            list.insert(format!("{key}_count"), json!(count));
        }
        list.insert(key.to_owned(), json!(shown));
    }

    /// Puts them into a row's detail, if there are any.
    pub fn put(self, detail: &mut Value) {
        if !self.shown.is_empty() {
            detail["changes"] = Value::Array(self.shown);
        }
        if self.more > 0 {
            detail["more_changes"] = json!(self.more);
        }
    }
}

/// The first of many lines.
#[must_use]
pub fn first_of(lines: &[String]) -> &[String] {
    &lines[..lines.len().min(MAX_LINES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(of: impl FnOnce(&mut Differences)) -> Value {
        let (mut differences, mut detail) = (Differences::default(), json!({}));
        of(&mut differences);
        differences.put(&mut detail);
        detail
    }

    #[test]
    fn only_what_differs_is_shown() {
        let shown = |name: &str, nodes: &[&str]| {
            let lines = nodes.iter().map(|node| (*node).to_owned());
            Some(Shown::of(json!({ "name": name, "kind": "socket" })).with_list("nodes", lines))
        };
        let one = detail(|found| found.add("x", shown("a", &["n", "m"]), shown("b", &["m", "o"])));
        let expected = json!({"changes": [{"of": "x", "before": {"name": "a"}, "after": {"name": "b"},
            "nodes": {"added": ["o"], "removed": ["n"]}}]});
        assert_eq!(one, expected);
        let new = detail(|found| found.add("x", None, shown("a", &["n"])));
        let expected = json!({"changes": [{"of": "x", "before": null, "after": {"name": "a", "kind": "socket"},
            "nodes": {"added": ["n"]}}]});
        assert_eq!(new, expected);
        let named = detail(|found| found.add("x", shown("a", &["n"]), shown("a", &["n"])));
        assert_eq!(named, json!({"changes": [{"of": "x", "before": {}, "after": {}}]}));
    }

    #[test]
    fn a_row_is_bounded_and_says_how_many_there_were() {
        let of_many =
            || Some(Shown::default().with_list("nodes", (0..10_000).map(|n| format!("node-{n}|192.0.2.1"))));
        let many = detail(|found| {
            for n in 0..1_000 {
                found.add(&format!("instance:{n}"), None, of_many());
            }
        });
        let first = &many["changes"][0]["nodes"];
        assert_eq!(
            (first["added"].as_array().map(Vec::len), &first["added_count"]),
            (Some(MAX_LINES), &json!(10_000))
        );
        assert_eq!(many["changes"][9]["nodes"], json!({"added": [], "added_count": 10_000}));
        assert_eq!(many["more_changes"], 1_000 - MAX_THINGS);
        assert!(many.to_string().len() < 80_000, "{}", many.to_string().len());
    }
}
