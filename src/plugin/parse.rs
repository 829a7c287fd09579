//! From bytes to a checked manifest: JSON, YAML or TOML, then types, then rules. Every refusal names
//! its field by a JSON pointer (RFC 6901).

use serde_ignored::Path;
use serde_json::Value;
use serde_path_to_error::{Segment, Track};

use crate::plugin::manifest::Manifest;
use crate::plugin::rules;

/// Bytes of a document.
pub const DOCUMENT_LEN_MAX: usize = 1024 * 1024;
/// Refused fields that are told at once.
pub const REFUSALS_MAX: usize = 32;

/// A language for documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// RFC 8259.
    Json,
    /// YAML 1.2.
    Yaml,
    /// TOML 1.0.
    Toml,
}

impl Language {
    /// By media type, parameters aside; `None` for one that is no document's.
    pub fn of_media_type(text: &str) -> Option<Language> {
        let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => Some(Language::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Language::Yaml),
            "application/toml" | "text/x-toml" => Some(Language::Toml),
            _ => None,
        }
    }
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// JSON pointer; empty for the whole document.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl Refused {
    /// `reason` at `pointer`.
    pub fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Refused {
        Refused { pointer: pointer.into(), reason: reason.into() }
    }
}

/// Why a document is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct InvalidManifest {
    /// At least one, at most [`REFUSALS_MAX`].
    pub refused: Vec<Refused>,
}

impl InvalidManifest {
    fn text(&self) -> String {
        let told = self.refused.iter().map(|Refused { pointer, reason }| match pointer.as_str() {
            "" => reason.clone(),
            pointer => format!("{pointer}: {reason}"),
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// All of `refused`, if there are any.
    ///
    /// # Errors
    /// This.
    pub fn unless_empty(mut refused: Vec<Refused>) -> Result<(), InvalidManifest> {
        refused.truncate(REFUSALS_MAX);
        if refused.is_empty() { Ok(()) } else { Err(InvalidManifest { refused }) }
    }
}

fn whole(reason: impl Into<String>) -> InvalidManifest {
    InvalidManifest { refused: vec![Refused::new("", reason)] }
}

/// Reads a document and checks it.
///
/// # Errors
/// [`InvalidManifest`] with every field that is unknown or breaks a rule, or with the first that has
/// the wrong type.
pub fn manifest(document: &[u8], language: Language) -> Result<Manifest, InvalidManifest> {
    let mut manifest = typed(value(document, language)?)?;
    rules::normalize(&mut manifest);
    InvalidManifest::unless_empty(rules::check(&manifest))?;
    Ok(manifest)
}

/// The document as a tree, without members that are null: to leave a field out and to set it to null
/// is the same (the original writes null for lists that it does not have).
///
/// # Errors
/// [`InvalidManifest`].
pub fn value(document: &[u8], language: Language) -> Result<Value, InvalidManifest> {
    if DOCUMENT_LEN_MAX < document.len() {
        return Err(whole(format!("at most {DOCUMENT_LEN_MAX} bytes")));
    }
    let text = std::str::from_utf8(document).map_err(|error| whole(error.to_string()))?;
    let parsed = match language {
        Language::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        Language::Yaml => serde_yaml_ng::from_str(text).map_err(|error| error.to_string()),
        Language::Toml => toml::from_str(text).map_err(|error| error.to_string()),
    };
    let mut value = parsed.map_err(whole)?;
    drop_nulls(&mut value);
    Ok(value)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn typed(value: Value) -> Result<Manifest, InvalidManifest> {
    if !value.is_object() {
        return Err(whole("a manifest is an object"));
    }
    let mut unknown = Vec::new();
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(tracked, |path: Path<'_>| {
        if unknown.len() < REFUSALS_MAX {
            unknown.push(Refused::new(pointer_of(&path), "there is no such field"));
        }
    });
    let manifest = read.map_err(|error: serde_json::Error| {
        let refused = vec![Refused::new(pointer_to(&track.path()), error.to_string())];
        InvalidManifest { refused }
    })?;
    InvalidManifest::unless_empty(unknown)?;
    Ok(manifest)
}

/// A name as a segment of a pointer.
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn pointer_of(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}/{index}", pointer_of(parent)),
        Path::Map { parent, key } => format!("{}/{}", pointer_of(parent), escaped(key)),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => pointer_of(parent),
    }
}

fn pointer_to(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escaped(key)),
            Segment::Enum { variant } => format!("/{}", escaped(variant)),
            Segment::Unknown => String::new(),
        })
        .collect()
}
