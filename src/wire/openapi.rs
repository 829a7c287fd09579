//! OpenAPI documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /api/v1/vms/{name}/openapi`: an OpenAPI document, whose form is not ours.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct OpenApiDocument(pub serde_json::Map<String, serde_json::Value>);
