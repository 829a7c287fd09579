//! Plugins' manifests: read, checked, and made into VMs. No I/O; who has installed what is the
//! orchestrator's to know.

mod artifact;
mod manifest;
mod merge;
mod parse;
mod rules;
mod volantfile;
mod workload;

pub use artifact::{check as check_artifact, of as artifacts_of};
pub use manifest::{Action, Manifest};
pub use merge::{MergeError, VmRequest, digests_of, merge};
pub use parse::{DOCUMENT_LEN_MAX, InvalidManifest, Language, Refused, manifest, value};
pub use volantfile::{FileDetails, Strategy, Volantfile, volantfile};
pub use workload::{default_port, full_path};

/// The JSON Schema of a manifest, made from its types.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Manifest).to_value()
}

#[cfg(test)]
mod tests;
