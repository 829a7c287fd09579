//! The JSON documents of an image: index, manifest, configuration (OCI image specification 1.1, and
//! Docker's schema 2, which it grew out of). Parsed from hostile bytes: sizes are bounded, media
//! types and digests are checked, what is not understood is refused by its name.
//!
//! Own shapes and not the crate oci-spec: Docker's `Healthcheck` is not part of the specification.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artifact::oci::ImageError;
use crate::model::Digest;

/// Bytes of one document (the distribution specification's advice for manifests).
pub const DOCUMENT_LEN_MAX: u64 = 4 << 20;
/// Layers of one image: Docker's own limit.
const LAYERS_MAX: usize = 127;
/// Manifests in one index.
const MANIFESTS_MAX: usize = 1024;

/// `application/vnd.oci.image.index.v1+json`.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.manifest.v1+json`.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.oci.image.config.v1+json`.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// `application/vnd.oci.image.layer.v1.tar`.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Bytes that a document refers to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    #[serde(default)]
    pub media_type: String,
    /// Their name.
    pub digest: String,
    /// How many they are.
    pub size: u64,
    /// For which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Platform {
    architecture: String,
    os: String,
}

impl Platform {
    fn is_ours(&self) -> bool {
        self.architecture == "amd64" && self.os == "linux"
    }
}

impl Descriptor {
    /// The digest, if it is one that is supported.
    ///
    /// # Errors
    /// [`ImageError::Invalid`].
    pub fn digest(&self) -> Result<Digest, ImageError> {
        Digest::try_from(self.digest.as_str())
            .map_err(|error| ImageError::invalid(format!("{:.80?}: {error}", self.digest)))
    }

    /// Whether it is an index of manifests, by its media type.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_INDEX)
    }

    /// How the layer is packed.
    ///
    /// # Errors
    /// It is no layer that can be unpacked.
    pub fn compression(&self) -> Result<Compression, ImageError> {
        match self.media_type.as_str() {
            OCI_LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
            other => Err(ImageError::MediaType(format!("{other:.120?} is no layer"))),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct IndexBody {
    manifests: Vec<Descriptor>,
}

/// One image for one kind of machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default)]
    pub media_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// A document that a reference can lead to.
#[derive(Debug)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// The same image for many machines.
    Index(Vec<Descriptor>),
}

impl Document {
    /// Parses index or manifest. `media_type` is what it was announced as, if it was.
    ///
    /// # Errors
    /// [`ImageError::Invalid`], [`ImageError::MediaType`].
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, ImageError> {
        let header: Header = json(bytes, "manifest")?;
        if header.fs_layers.is_some() || header.schema_version != 2 {
            let text = format!("a manifest of schema version {}", header.schema_version);
            return Err(ImageError::MediaType(text));
        }
        let kind = header.media_type.as_deref().or(media_type);
        let is_index = match kind {
            Some(OCI_INDEX | DOCKER_INDEX) => true,
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
            None => header.manifests.is_some(),
            Some(other) => {
                return Err(ImageError::MediaType(format!("{other:.120?} is no image")));
            }
        };
        if is_index {
            let index: IndexBody = json(bytes, "index")?;
            if MANIFESTS_MAX < index.manifests.len() {
                return Err(ImageError::invalid("the index has too many manifests"));
            }
            return Ok(Document::Index(index.manifests));
        }
        let manifest: Manifest = json(bytes, "manifest")?;
        manifest.check()?;
        Ok(Document::Manifest(manifest))
    }
}

/// The manifest in an index that is for this kind of machine.
///
/// # Errors
/// There is none.
pub fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let ours = |d: &&Descriptor| d.platform.as_ref().is_some_and(Platform::is_ours);
    let any = |d: &&Descriptor| d.platform.is_none();
    let found = manifests.iter().find(ours).or_else(|| manifests.iter().find(any));
    found.ok_or_else(|| ImageError::invalid("the image is not made for linux/amd64"))
}

impl Manifest {
    fn check(&self) -> Result<(), ImageError> {
        if !matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            let kind = &self.config.media_type;
            return Err(ImageError::MediaType(format!("{kind:.120?} is no image configuration")));
        }
        if DOCUMENT_LEN_MAX < self.config.size {
            return Err(ImageError::invalid("the configuration is too large"));
        }
        if LAYERS_MAX < self.layers.len() {
            return Err(ImageError::invalid(format!("more than {LAYERS_MAX} layers")));
        }
        self.config.digest()?;
        for layer in &self.layers {
            layer.digest()?;
            layer.compression()?;
        }
        Ok(())
    }

    /// Bytes of all layers as they are stored.
    pub fn layer_bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// The configuration of an image: what it runs, and which trees its layers are.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    /// What it runs.
    #[serde(default)]
    pub config: RunConfig,
    rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// What an image runs (OCI image specification, config.md), with Docker's additions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `name`, `uid`, with or without group.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`: what it listens on.
    #[serde(deserialize_with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program, and arguments that stay.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Folders that hold data.
    #[serde(deserialize_with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Where it runs.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Notes.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it is asked to end: `SIGTERM`, `15`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's: how its health is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// Docker's health check. Times in nanoseconds, 0 for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` and arguments, or `CMD-SHELL` and a line.
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Between checks.
    pub interval: i64,
    /// For one check.
    pub timeout: i64,
    /// Failures do not count that long.
    pub start_period: i64,
    /// Failures in a row that mean unhealthy.
    pub retries: i64,
}

impl ImageConfig {
    /// Parses and checks.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, ImageError> {
        let config: ImageConfig = json(bytes, "image configuration")?;
        let (machine, os) = (&config.architecture, &config.os);
        if machine != "amd64" || os != "linux" {
            let text = format!("the image is for {os:.40}/{machine:.40}, not for linux/amd64");
            return Err(ImageError::invalid(text));
        }
        config.diff_ids()?;
        Ok(config)
    }

    /// Digests of the unpacked layers.
    ///
    /// # Errors
    /// One is no digest.
    pub fn diff_ids(&self) -> Result<Vec<Digest>, ImageError> {
        let parse = |text: &String| {
            Digest::try_from(text.as_str())
                .map_err(|error| ImageError::invalid(format!("diff_id {text:.80?}: {error}")))
        };
        self.rootfs.diff_ids.iter().map(parse).collect()
    }
}

/// Docker writes `null` where a list is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A set that is written as an object of empty objects; a list is taken as well, as we write it.
fn keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Set {
        Map(BTreeMap<String, serde::de::IgnoredAny>),
        List(Vec<String>),
    }
    Ok(match Option::<Set>::deserialize(deserializer)? {
        Some(Set::Map(map)) => map.into_keys().collect(),
        Some(Set::List(list)) => list,
        None => Vec::new(),
    })
}

/// Parses a bounded document.
///
/// # Errors
/// [`ImageError::Invalid`].
pub fn json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    if DOCUMENT_LEN_MAX < bytes.len() as u64 {
        return Err(ImageError::invalid(format!("the {what} is too large")));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::invalid(format!("the {what} makes no sense: {error}")))
}
