//! A small checker of answers against the OpenAPI slice (`tests/openapi/graph.json`, strict form).

use std::sync::LazyLock;

use serde_json::Value;

static SLICE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../openapi/graph.json")).expect("the slice is JSON")
});

/// Panics with every difference between an answer and what the slice says about it.
pub(crate) fn check(method: &str, path: &str, status: u16, body: Option<&Value>) {
    let differences = differences(method, path, status, body);
    assert!(
        differences.is_empty(),
        "{method} {path} -> {status} breaks the contract: {differences:#?}"
    );
}

/// What is wrong with an answer. `path` is percent-encoded, without query.
pub(crate) fn differences(
    method: &str,
    path: &str,
    status: u16,
    body: Option<&Value>,
) -> Vec<String> {
    let Some(operation) = operation(method, path) else {
        // What the slice does not have can only be refused.
        return if status >= 400 {
            Vec::new()
        } else {
            vec!["the slice has no such operation".into()]
        };
    };
    let responses = &operation["responses"];
    let class = format!("{}XX", status / 100);
    let response = [status.to_string(), class]
        .into_iter()
        .find_map(|key| responses.get(key));
    let Some(response) = response.map(resolved) else {
        return vec![format!("status {status} is not declared")];
    };
    let schema = response.pointer("/content/application~1json/schema");
    match (schema, body) {
        (Some(schema), Some(body)) => {
            let mut found = Vec::new();
            walk(schema, body, "$", &mut found);
            found
        }
        (Some(_), None) => vec!["a JSON body is missing".into()],
        (None, Some(_)) => vec!["a body where none is declared".into()],
        (None, None) => Vec::new(),
    }
}

/// The operation whose path template has the shape of `path`; literal segments win over parameters.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let segments: Vec<&str> = path.split('/').collect();
    let paths = SLICE["paths"].as_object()?;
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let equal = wanted.len() == segments.len()
            && wanted
                .iter()
                .zip(&segments)
                .all(|(wanted, found)| wanted.starts_with('{') || wanted == found);
        equal.then(|| {
            wanted
                .iter()
                .filter(|wanted| !wanted.starts_with('{'))
                .count()
        })
    };
    let best = paths
        .iter()
        .filter_map(|(template, item)| fits(template).map(|literal| (literal, item)));
    let (_, item) = best.max_by_key(|(literal, _)| *literal)?;
    item.get(method.to_lowercase())
}

/// Follows `$ref`.
fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolved(
            SLICE
                .pointer(&reference[1..])
                .expect("a reference leads somewhere"),
        ),
        None => value,
    }
}

fn walk(schema: &'static Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolved(schema);
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            let fits = |choice: &&'static Value| {
                let mut inner = Vec::new();
                walk(choice, value, at, &mut inner);
                inner.is_empty()
            };
            if !choices.iter().any(|choice| fits(&choice)) {
                found.push(format!("{at}: {value} fits none of the choices"));
                // The first choice says most about what was meant.
                if let Some(first) = choices.first() {
                    walk(first, value, at, found);
                }
            }
        }
    }
    for part in schema
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        walk(part, value, at, found);
    }
    if let Some(wanted) = schema.get("type") {
        let names: Vec<&str> = wanted
            .as_str()
            .into_iter()
            .chain(
                wanted
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str),
            )
            .collect();
        if !names.iter().any(|name| is_of(value, name)) {
            found.push(format!("{at}: {value} is not {names:?}"));
            return;
        }
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        found.push(format!("{at}: {value} is not among {choices:?}"));
    }
    match value {
        Value::Object(members) => walk_object(schema, members, at, found),
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter().enumerate().for_each(|(position, item)| {
                    walk(schema, item, &format!("{at}[{position}]"), found)
                });
            }
        }
        _ => {}
    }
}

fn walk_object(
    schema: &'static Value,
    members: &serde_json::Map<String, Value>,
    at: &str,
    found: &mut Vec<String>,
) {
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !members.contains_key(name) {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, value) in members {
        match schema
            .get("properties")
            .and_then(|properties| properties.get(name))
        {
            Some(schema) => walk(schema, value, &format!("{at}.{name}"), found),
            None if closed && !name.contains('@') => {
                found.push(format!("{at}: {name} is not known"))
            }
            None => {}
        }
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}

/// A checker that lets everything pass proves nothing.
#[test]
fn wrong_answers_are_found() {
    let path = "/v1.0/users/u/messages";
    let good = serde_json::json!({ "value": [{ "id": "x", "isRead": false, "@odata.etag": "e" }], "@odata.nextLink": "l" });
    assert_eq!(
        differences("GET", path, 200, Some(&good)),
        Vec::<String>::new()
    );
    for (name, method, path, status, body) in [
        (
            "wrong type",
            "GET",
            path,
            200,
            serde_json::json!({ "value": [{ "isRead": "no" }] }),
        ),
        (
            "misspelt property",
            "GET",
            path,
            200,
            serde_json::json!({ "value": [{ "internetMessageID": "x" }] }),
        ),
        (
            "extra member",
            "GET",
            path,
            200,
            serde_json::json!({ "value": [], "more": 1 }),
        ),
        ("missing member", "GET", path, 200, serde_json::json!({})),
        (
            "error without code",
            "GET",
            path,
            404,
            serde_json::json!({ "error": { "message": "m" } }),
        ),
        (
            "undeclared status",
            "POST",
            "/v1.0/users/u/messages/m/move",
            202,
            serde_json::json!({}),
        ),
        (
            "unknown operation",
            "POST",
            "/v1.0/users/u/messages/m/softDelete",
            200,
            serde_json::json!({}),
        ),
    ] {
        assert_ne!(
            differences(method, path, status, Some(&body)),
            Vec::<String>::new(),
            "{name}"
        );
    }
}
