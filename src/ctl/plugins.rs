//! `volantd ctl plugins ...`: one function for each verb.

use std::path::Path;

use hyper::Method;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{InstallArgs, PluginsCommand, WatchArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::{Listed, Printer};
use crate::ctl::vms::encoded;
use crate::ctl::{actions, artifacts, source, watch};
use crate::plugin::{DOCUMENT_LEN_MAX, Language, value};
use crate::wire::{FetchPlugin, PluginList, PluginVersionView, PluginView, Rollback, SetEnabled};

const NO_BODY: Option<&()> = None;

/// Runs a verb.
///
/// # Errors
/// [`Failure`].
pub async fn run(client: &Client, command: PluginsCommand, out: &Printer) -> Result<u8, Failure> {
    match command {
        PluginsCommand::List(WatchArgs { watch }) => {
            let read = async || {
                let list: PluginList = client.json(Method::GET, "/api/v1/plugins", NO_BODY).await?;
                Ok(list.items)
            };
            watch::list(watch, out, read).await?;
        }
        PluginsCommand::Show { name, version } => {
            let query = version.map_or(String::new(), |v| format!("?version={}", encoded(&v)));
            let manifest: Value = client.json(Method::GET, &path(&name, &query), NO_BODY).await?;
            out.value(&manifest)?;
        }
        PluginsCommand::Versions { name } => {
            let plugin: PluginView =
                client.json(Method::GET, &path(&name, "/versions"), NO_BODY).await?;
            out.list(&versions(&plugin))?;
        }
        PluginsCommand::Install(args) => install(client, args, out).await?,
        PluginsCommand::Enable { name } => enable(client, &name, true, out).await?,
        PluginsCommand::Disable { name } => enable(client, &name, false, out).await?,
        PluginsCommand::Rollback { name, version } => {
            let path = path(&name, "/rollback");
            let body = Rollback { version };
            let plugin: PluginView = client.json(Method::POST, &path, Some(&body)).await?;
            out.one(&plugin)?;
        }
        PluginsCommand::Fetch { name, version, insecure } => {
            let request = FetchPlugin { version, insecure };
            out.list(&artifacts::fetch(client, &name, &request, out).await?)?;
        }
        PluginsCommand::Action(args) => return actions::of_any(client, args, out).await,
        PluginsCommand::Remove { name } => {
            client.send(Method::DELETE, &path(&name, ""), None, "*/*").await?;
        }
    }
    Ok(0)
}

/// A version, and whether it is the one of new VMs.
#[derive(Debug, Serialize)]
struct Version {
    version: String,
    current: bool,
    installed_at: String,
}

impl Listed for Version {
    const HEADER: &'static [&'static str] = &["VERSION", "CURRENT", "INSTALLED"];

    fn name(&self) -> String {
        self.version.clone()
    }

    fn cells(&self) -> Vec<String> {
        let current = if self.current { "*" } else { "" };
        vec![self.version.clone(), current.to_owned(), self.installed_at.clone()]
    }
}

fn versions(plugin: &PluginView) -> Vec<Version> {
    let version = |version: &PluginVersionView| Version {
        version: version.version.clone(),
        current: version.version == plugin.version,
        installed_at: version.installed_at.clone(),
    };
    plugin.versions.iter().map(version).collect()
}

fn path(name: &str, rest: &str) -> String {
    format!("/api/v1/plugins/{}{rest}", encoded(name))
}

async fn enable(client: &Client, name: &str, enabled: bool, out: &Printer) -> Result<(), Failure> {
    let body = SetEnabled { enabled };
    let plugin: PluginView =
        client.json(Method::POST, &path(name, "/enabled"), Some(&body)).await?;
    out.one(&plugin)
}

async fn install(client: &Client, args: InstallArgs, out: &Printer) -> Result<(), Failure> {
    let (name, from) = match args.manifest {
        Some(from) => (args.name, from),
        None => (None, args.name.unwrap_or_default()),
    };
    let manifest = manifest(&from).await?;
    let query = name.map_or(String::new(), |name| format!("?name={}", encoded(&name)));
    let path = format!("/api/v1/plugins{query}");
    let plugin: PluginView = client.json(Method::POST, &path, Some(&manifest)).await?;
    out.one(&plugin)
}

/// A manifest of a file, an http URL, or - for stdin, with what lies beside it.
///
/// # Errors
/// It cannot be read, or is none.
pub async fn manifest(from: &str) -> Result<Value, Failure> {
    let document = if source::is_url(from) {
        source::fetch(from, DOCUMENT_LEN_MAX).await?
    } else {
        source::read(from, DOCUMENT_LEN_MAX)?
    };
    let mut manifest = parse(&document, from)?;
    let base = from.rsplit_once('/').map_or("", |(base, _)| base);
    resolve(&mut manifest, if from == "-" { "" } else { base })?;
    Ok(manifest)
}

/// By the name's ending, else JSON if it begins so, else the first of YAML and TOML that fits.
fn parse(document: &[u8], name: &str) -> Result<Value, Failure> {
    let begins = document.iter().find(|byte| !byte.is_ascii_whitespace());
    let name = name.split(['?', '#']).next().unwrap_or_default();
    let languages: &[Language] = match Path::new(name).extension().and_then(|text| text.to_str()) {
        Some("json") => &[Language::Json],
        Some("yaml" | "yml") => &[Language::Yaml],
        Some("toml") => &[Language::Toml],
        _ if begins == Some(&b'{') => &[Language::Json],
        _ => &[Language::Toml, Language::Yaml],
    };
    let mut refusal = None;
    for language in languages {
        match value(document, *language) {
            Ok(value) => return Ok(value),
            Err(error) => refusal = Some(error.to_string()),
        }
    }
    let text = format!("{name}: {}", refusal.unwrap_or_default());
    Err(Failure { exit_code: 2, ..Failure::local(text) })
}

/// What the daemon cannot see: media beside the manifest get their full place, and cloud-init's files
/// are read.
fn resolve(manifest: &mut Value, base: &str) -> Result<(), Failure> {
    let join = |text: &mut String| {
        let has_place = text.starts_with('/') || text.contains(':');
        if !has_place && !text.is_empty() {
            *text = format!("{}/{text}", absolute(base)?);
        }
        Ok::<(), Failure>(())
    };
    for pointer in ["/rootfs/url", "/initramfs/url"] {
        if let Some(Value::String(text)) = manifest.pointer_mut(pointer) {
            join(text)?;
        }
    }
    for disk in manifest.get_mut("disks").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::String(text)) = disk.get_mut("source") {
            join(text)?;
        }
    }
    for name in ["user_data", "meta_data", "network_config"] {
        let Some(Value::Object(document)) = manifest.pointer_mut(&format!("/cloud_init/{name}"))
        else {
            continue;
        };
        let Some(Value::String(path)) = document.get("path") else { continue };
        if document.contains_key("content") || source::is_url(base) {
            continue;
        }
        let path = if path.starts_with('/') {
            path.clone()
        } else {
            format!("{}/{path}", absolute(base)?)
        };
        let content = source::read(&path, DOCUMENT_LEN_MAX)?;
        let content = String::from_utf8(content)
            .map_err(|error| Failure::local(format!("{path}: {error}")))?;
        document.remove("path");
        document.insert("inline".to_owned(), Value::Bool(true));
        document.insert("content".to_owned(), Value::String(content));
    }
    Ok(())
}

fn absolute(base: &str) -> Result<String, Failure> {
    if source::is_url(base) || base.starts_with('/') {
        return Ok(base.to_owned());
    }
    let folder = std::path::absolute(if base.is_empty() { "." } else { base });
    let folder = folder.map_err(|error| Failure::local(error.to_string()))?;
    Ok(folder.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_lies_beside_a_manifest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("user-data"), "#cloud-config\n").unwrap();
        let base = folder.path().to_str().unwrap();
        let mut manifest = json!({
            "initramfs": { "url": "images/a.cpio" },
            "rootfs": { "url": "https://example.com/a" },
            "disks": [{ "source": "data.raw" }, { "source": "/data.raw" }, {}],
            "cloud_init": {
                "user_data": { "path": "user-data", "inline": false },
                "meta_data": { "content": "a: b" }
            }
        });
        resolve(&mut manifest, base).unwrap();
        assert_eq!(
            manifest,
            json!({
                "initramfs": { "url": format!("{base}/images/a.cpio") },
                "rootfs": { "url": "https://example.com/a" },
                "disks": [{ "source": format!("{base}/data.raw") }, { "source": "/data.raw" }, {}],
                "cloud_init": {
                    "user_data": { "content": "#cloud-config\n", "inline": true },
                    "meta_data": { "content": "a: b" }
                }
            })
        );
        let mut built_in = json!({ "initramfs": { "url": "builtin:default" } });
        resolve(&mut built_in, "http://example.com/plugins").unwrap();
        assert_eq!(built_in["initramfs"]["url"], "builtin:default");
        let mut remote = json!({ "initramfs": { "url": "a.cpio" } });
        resolve(&mut remote, "http://example.com/plugins").unwrap();
        assert_eq!(remote["initramfs"]["url"], "http://example.com/plugins/a.cpio");
        let mut lost = json!({ "cloud_init": { "user_data": { "path": "none" } } });
        assert_eq!(resolve(&mut lost, base).unwrap_err().exit_code, 2);
    }

    #[test]
    fn the_language_is_found_by_name_or_beginning() {
        let expected = json!({ "name": "web" });
        let table = [
            ("a.json", "{\"name\": \"web\"}"),
            ("a.yml", "name: web"),
            ("a.toml?x=1", "name = \"web\""),
            ("-", " {\"name\": \"web\"}"),
            ("-", "name = \"web\""),
            ("-", "name: web"),
        ];
        for (name, text) in table {
            assert_eq!(parse(text.as_bytes(), name).unwrap(), expected, "{name} {text}");
        }
        assert!(parse(b"name: web", "a.json").is_err());
    }
}
