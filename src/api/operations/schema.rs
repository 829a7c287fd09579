//! JSON Schemas of operations: for OpenAPI with shared components, for tools each whole in itself.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::api::operations::{Answer, Body, Operation, SchemaOf, all};
use crate::wire::{EventView, Problem};

type Object = Map<String, Value>;

fn generator(definitions: &'static str) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12();
    let bounded = RecursiveTransform(with_bounds);
    let settings = settings.with(|settings| settings.definitions_path = definitions.into());
    settings.with_transform(bounded).into_generator()
}

/// Integers have the bounds of the type that takes them.
fn with_bounds(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        bound(object);
    }
}

fn bound(object: &mut Object) {
    let (lowest, highest) = match object.get("format").and_then(Value::as_str) {
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("uint" | "uint64") => (json!(0), json!(u64::MAX)),
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        Some("int64") => (json!(i64::MIN), json!(i64::MAX)),
        _ => return,
    };
    object.entry("minimum").or_insert(lowest);
    object.entry("maximum").or_insert(highest);
}

/// All types of the API by name, for `/components/schemas`.
pub fn component_schemas() -> Object {
    let mut generator = generator("/components/schemas");
    generator.subschema_for::<Problem>();
    generator.subschema_for::<EventView>();
    for operation in all() {
        for schema_of in
            [operation.query, body_of(operation), operation.answer.json()].into_iter().flatten()
        {
            schema_of(&mut generator);
        }
    }
    generator.take_definitions(true)
}

fn body_of(operation: &Operation) -> Option<SchemaOf> {
    match operation.body {
        Some(Body::Json(schema_of)) => Some(schema_of),
        Some(Body::Bytes) | None => None,
    }
}

/// A reference into the components, or the schema itself where it has no name.
pub fn component(schema_of: SchemaOf) -> Value {
    schema_of(&mut generator("/components/schemas")).to_value()
}

/// Parameters in an operation's path, in order.
pub fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.trim_start_matches('*'))
    })
}

/// The query's parameters with their schemas, and which of them must be given.
pub fn query_properties(operation: &Operation) -> (Object, Vec<String>) {
    let Some(query) = operation.query else { return (Object::new(), Vec::new()) };
    properties(query, &mut generator("/components/schemas"))
}

/// Properties of an object type, inlined, and the required ones.
fn properties(schema_of: SchemaOf, generator: &mut SchemaGenerator) -> (Object, Vec<String>) {
    let schema = schema_of(generator).to_value();
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let object = match name {
        Some(name) => generator.definitions().get(name).cloned().unwrap_or_default(),
        None => schema,
    };
    let mut properties =
        object.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties.values_mut().for_each(without_null);
    properties.values_mut().filter_map(Value::as_object_mut).for_each(bound);
    let required = object.get("required").and_then(Value::as_array).into_iter().flatten();
    (properties, required.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// What may be left out need not be allowed as null too: one way to say nothing is enough.
fn without_null(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&json!("null")));
        if let [only] = choices.as_slice() {
            let only = only.as_object().cloned().unwrap_or_default();
            schema.remove("anyOf");
            schema.extend(only);
        }
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
}

/// The same in all of a schema: what has no value is left out of the wire, never null, and models'
/// makers have dialects without null.
fn portable(schema: &mut Value) {
    without_null(schema);
    match schema {
        // The bounds say the same to those that do not know the format.
        Value::Object(object) if object.get("format").is_some_and(is_width) => {
            object.remove("format");
        }
        Value::Object(object) => object.values_mut().for_each(portable),
        Value::Array(items) => items.iter_mut().for_each(portable),
        _ => {}
    }
}

fn is_width(format: &Value) -> bool {
    format.as_str().is_some_and(|format| {
        format
            .trim_start_matches('u')
            .strip_prefix("int")
            .is_some_and(|bits| bits.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// One object that holds an operation's path, query and body parameters, whole in itself: the input
/// of its tool. `call` takes it apart again.
pub fn argument_schema(operation: &Operation) -> Object {
    let mut generator = generator("/$defs");
    let (mut all, mut required) = (Object::new(), Vec::new());
    for name in path_parameters(operation.path) {
        let text = json!({ "type": "string", "description": format!("The {name} it is about.") });
        all.insert(name.to_owned(), text);
        required.push(name.to_owned());
    }
    if matches!(operation.body, Some(Body::Bytes)) {
        let text = "The bytes, as text; or content_base64.";
        all.insert("content".to_owned(), json!({ "type": "string", "description": text }));
        let text = "The bytes, as base64.";
        let encoded = json!({ "type": "string", "description": text });
        all.insert("content_base64".to_owned(), encoded);
    }
    for part in [operation.query, body_of(operation)].into_iter().flatten() {
        let (properties, needed) = properties(part, &mut generator);
        all.extend(properties);
        required.extend(needed);
    }
    let mut schema = Object::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(all));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
    with_definitions(schema, &mut generator)
}

/// The form of what `call` returns: always an object, so that clients of every MCP version take it.
pub fn answer_schema(operation: &Operation) -> Object {
    let mut generator = generator("/$defs");
    let schema = match operation.answer {
        Answer::Json(_, schema_of) | Answer::Long(schema_of) => {
            let schema = schema_of(&mut generator).to_value();
            if schema.get("type") == Some(&json!("array")) {
                json!({ "type": "object", "properties": { "items": schema }, "required": ["items"] })
            } else if schema == json!(true) {
                json!({ "type": "object", "additionalProperties": true })
            } else {
                json!({ "type": "object", "allOf": [schema] })
            }
        }
        Answer::Text(_) => json!({
            "type": "object",
            "properties": {
                "text": { "type": "string" },
                "truncated": {
                    "type": "boolean",
                    "description": "The text is longer; this is its end.",
                },
            },
            "required": ["text", "truncated"],
        }),
        Answer::Bytes(_) => json!({
            "type": "object",
            "properties": {
                "content": { "type": "string" },
                "encoding": { "enum": ["utf-8", "base64"] },
                "truncated": {
                    "type": "boolean",
                    "description": "There is more; this is the beginning.",
                },
            },
            "required": ["content", "encoding", "truncated"],
        }),
        Answer::Empty(_) | Answer::Events | Answer::Socket | Answer::Guest => json!({
            "type": "object",
            "properties": { "done": { "const": true } },
            "required": ["done"],
        }),
    };
    let schema = schema.as_object().cloned().unwrap_or_default();
    with_definitions(schema, &mut generator)
}

/// Adds the definitions that the schema refers to, directly or through another.
fn with_definitions(mut schema: Object, generator: &mut SchemaGenerator) -> Object {
    let mut known = generator.take_definitions(true);
    known.values_mut().for_each(portable);
    schema.values_mut().for_each(portable);
    let mut wanted = Object::new();
    let mut pending = vec![Value::Object(schema.clone())];
    while let Some(value) = pending.pop() {
        for name in references(&value) {
            if let (false, Some(definition)) = (wanted.contains_key(&name), known.get(&name)) {
                wanted.insert(name, definition.clone());
                pending.push(definition.clone());
            }
        }
    }
    if !wanted.is_empty() {
        schema.insert("$defs".to_owned(), Value::Object(wanted));
    }
    schema
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => {
            let own = object.get("$ref").and_then(Value::as_str);
            let own = own.and_then(|path| path.rsplit('/').next()).map(str::to_owned);
            own.into_iter().chain(object.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
