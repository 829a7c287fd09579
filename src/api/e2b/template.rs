//! What a sandbox is made of: a template of the configuration, a plugin, or an image.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::Value;

use crate::api::e2b::{E2b, METADATA_PREFIX, TEMPLATE_LABEL};
use crate::api::error::Refusal;
use crate::model::{
    ImageWish, InvalidSpec, Kind, NetworkMode, NewVm, OnExpiry, VmName, VolumeMount, VolumeName,
};
use crate::orchestrator::{Error, VmRequest};
use crate::wire::e2b::{NewSandbox, SandboxVolume};

/// Begins a sandbox's name, which has no hyphen: E2B's do not.
const NAME_PREFIX: &str = "sb";
/// Bytes of randomness in it.
const NAME_LEN: usize = 10;
/// Seconds that a sandbox may live, where nobody says.
pub const TIMEOUT_DEFAULT_S: u64 = 300;

/// A name that nobody can guess.
///
/// # Errors
/// The kernel gives no randomness.
pub fn random_name(prefix: &str, len: usize) -> Result<String, Refusal> {
    let mut bytes = vec![0; len];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    if filled != Ok(len) {
        return Err(Error::Internal("the kernel gives no randomness").into());
    }
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}{digits}"))
}

/// What this daemon does not have yet. The SDKs show it as their own error.
pub fn unsupported(text: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_supported", text)
}

/// Refuses what would be left out silently.
fn check(new: &NewSandbox) -> Result<(), Refusal> {
    let is_given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let resumes = new.auto_resume.as_ref().is_some_and(|resume| {
        resume.as_bool() == Some(true)
            || resume.get("enabled").and_then(Value::as_bool) == Some(true)
    });
    let table = [
        (is_given(&new.network), "networks of sandboxes' own"),
        (is_given(&new.iam), "identities of sandboxes' own"),
        (is_given(&new.mcp), "MCP servers in sandboxes"),
        (resumes, "sandboxes that resume by themselves"),
        (
            new.auto_pause == Some(true) && new.auto_pause_memory != Some(false),
            "pauses that keep a sandbox's memory (on_timeout mode \"filesystem\" is offered)",
        ),
    ];
    match table.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(unsupported(&format!("not offered yet: {what}"))),
        None => Ok(()),
    }
}

fn mount(volume: SandboxVolume) -> Result<VolumeMount, InvalidSpec> {
    let SandboxVolume { name, path } = volume;
    let volume = VolumeName::try_from(name.as_str())?;
    Ok(VolumeMount { volume, path, readonly: false, make_mib: None })
}

/// Labels of a sandbox: its template, and its client's metadata.
fn labels(template: &str, metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = (TEMPLATE_LABEL.to_owned(), template.to_owned());
    let theirs = metadata.into_iter();
    let theirs = theirs.map(|(name, value)| (format!("{METADATA_PREFIX}{name}"), value));
    theirs.chain([own]).collect()
}

/// What follows the end of its time.
fn on_expiry(new: &NewSandbox) -> OnExpiry {
    if new.auto_pause == Some(true) { OnExpiry::Stop } else { OnExpiry::Delete }
}

impl E2b {
    /// The VM that a client's wish describes.
    ///
    /// # Errors
    /// A problem: no such template, or something that is not offered.
    pub(super) fn plan(&self, new: NewSandbox) -> Result<NewVm, Refusal> {
        check(&new)?;
        let then = on_expiry(&new);
        let template = new.template_id;
        let volumes = new.volume_mounts.unwrap_or_default();
        let volumes: Result<Vec<_>, _> = volumes.into_iter().map(mount).collect();
        let isolated = new.allow_internet_access == Some(false);
        let mut request = VmRequest {
            env: new.env_vars.unwrap_or_default(),
            labels: labels(&template, new.metadata.unwrap_or_default()),
            volumes: volumes.map_err(Error::from)?,
            network: isolated.then_some(NetworkMode::Vsock),
            ..VmRequest::named(VmName::try_from(random_name(NAME_PREFIX, NAME_LEN)?.as_str())?)
        };
        let settings = &self.settings;
        let image = settings.templates.get(&template);
        let plugin = match self.orchestrator.plugin(&template) {
            Ok(plugin) if image.is_none() && plugin.enabled => Some((template.as_str(), None)),
            _ => None,
        };
        if plugin.is_none() {
            let name = image.cloned().unwrap_or(template.clone());
            request.image = Some(ImageWish { name, ..ImageWish::default() });
            request.vcpus = Some(settings.cpus);
            request.memory_mib = Some(settings.memory_mib);
        }
        let mut vm = self.orchestrator.plan(plugin, request)?;
        let seconds = new.timeout.unwrap_or(TIMEOUT_DEFAULT_S);
        vm.expiry = Some(self.expiry(seconds, then)?);
        // A port of the host could lead to one sandbox only; each has its own host names.
        vm.exposures = Vec::new();
        Ok(vm)
    }
}

/// The answer where a VM could not be made: an image that is not there is a template that is not.
pub fn no_template(error: Error, template: &str) -> Refusal {
    let is_unknown = matches!(error, Error::Reference(_) | Error::ImageNotFound(_));
    if is_unknown && matches!(error.kind(), Kind::NotFound | Kind::Invalid) {
        let text = format!(
            "template {template:?} not found: it is no template of the configuration, no enabled \
             plugin and no image that is here"
        );
        return Refusal::new(StatusCode::NOT_FOUND, "template_not_found", text);
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> NewSandbox {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        let table = [
            (r#"{"templateID":"base"}"#, true),
            (r#"{"templateID":"base","secure":true,"autoPause":false,"mcp":null}"#, true),
            (r#"{"templateID":"base","autoPause":true,"autoPauseMemory":false}"#, true),
            (r#"{"templateID":"base","autoPause":true}"#, false),
            (r#"{"templateID":"base","allow_internet_access":false}"#, true),
            (r#"{"templateID":"base","autoResume":{"enabled":true}}"#, false),
            (r#"{"templateID":"base","network":{"denyOut":["0.0.0.0/0"]}}"#, false),
        ];
        for (text, expected) in table {
            assert_eq!(check(&new(text)).is_ok(), expected, "{text}");
        }
        let pausing = new(r#"{"templateID":"b","autoPause":true,"autoPauseMemory":false}"#);
        assert_eq!(on_expiry(&pausing), OnExpiry::Stop);
    }

    #[test]
    fn names_are_long_and_without_hyphens() {
        let name = random_name(NAME_PREFIX, NAME_LEN).unwrap();
        assert_eq!(name.len(), NAME_PREFIX.len() + 2 * NAME_LEN);
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(name, random_name(NAME_PREFIX, NAME_LEN).unwrap());
    }
}
