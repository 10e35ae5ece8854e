//! Which keys an answer has: all of them, where what is not known is `null`.
//!
//! A request may leave out what has a default or may be `null`, and that is what its type says. The types of answers say it too, so that
//! this version reads the answers of others; but the server writes each key. So what only answers are made of requires them all.

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{OpenApi, RefOr};

use crate::api::ApiError;

const SCHEMAS: &str = "#/components/schemas/";

/// Says so in the schemas.
pub(super) fn require_all_keys(api: &mut OpenApi) {
    let Ok(whole) = serde_json::to_value(&*api) else { return };
    let asked = parts(&whole, |key| key == "requestBody");
    let only_answered: BTreeSet<String> =
        parts(&whole, |key| key == "responses").difference(&asked).cloned().collect();
    let Some(components) = &mut api.components else { return };
    for (name, schema) in &mut components.schemas {
        // Of an error most have no field.
        if only_answered.contains(name) && *name != ApiError::name() {
            if let RefOr::T(Schema::Object(object)) = schema {
                object.required = object.properties.keys().cloned().collect();
            }
        }
    }
}

/// The names of all schemas that those below such a key are made of.
fn parts(whole: &Value, is_meant: impl Fn(&str) -> bool + Copy) -> BTreeSet<String> {
    let mut waiting = Vec::new();
    below(&whole["paths"], is_meant, &mut waiting);
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        names(&whole["components"]["schemas"][&name], &mut waiting);
        found.insert(name);
        waiting.retain(|name| !found.contains(name));
    }
    found
}

fn below(value: &Value, is_meant: impl Fn(&str) -> bool + Copy, names_out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match is_meant(key) {
            true => names(value, names_out),
            false => below(value, is_meant, names_out),
        }),
        Value::Array(list) => list.iter().for_each(|value| below(value, is_meant, names_out)),
        _ => {}
    }
}

/// The schemas to which a value refers.
fn names(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(SCHEMAS));
            out.extend(name.map(str::to_owned));
            map.values().for_each(|value| names(value, out));
        }
        Value::Array(list) => list.iter().for_each(|value| names(value, out)),
        _ => {}
    }
}
