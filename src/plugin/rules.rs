//! The rules that types cannot say. Pure, and complete: every field that breaks one is told.

use std::net::Ipv4Addr;

use http::Uri;
use http::uri::Scheme;

use crate::model::{self, PluginName, PluginVersion, VmSpec};
use crate::plugin::manifest::{
    Action, CloudInit, Devices, Format, Health, Manifest, NetworkMode, NetworkSection, Port,
    SeedDocument, Volume, WorkloadKind, WorkloadSection,
};
use crate::plugin::parse::{Refused, escaped};
use crate::plugin::workload;

/// The url of the daemon's own initramfs.
pub const BUILTIN_INITRAMFS: &str = "builtin:default";
/// Actions of one plugin.
pub const ACTIONS_MAX: usize = 256;
/// Ports, volumes, labels of one plugin, each.
pub const ITEMS_MAX: usize = 64;
/// Characters of a label's name and value.
const LABEL_LEN_MAX: usize = 256;
/// Characters of a path or URL.
const TEXT_LEN_MAX: usize = 4096;
/// Milliseconds that an action may take to begin its answer: an hour.
const ACTION_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Bytes of the schema of what an action takes.
const INPUT_LEN_MAX: usize = 16 * 1024;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Trims names and references and drops list items and map entries without content, as the original
/// does. Values of variables and arguments stay as they are.
pub fn normalize(manifest: &mut Manifest) {
    let trim = |text: &mut String| *text = text.trim().to_owned();
    let trim_some = |text: &mut Option<String>| {
        *text = text.take().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    };
    [&mut manifest.schema_version, &mut manifest.name, &mut manifest.version]
        .into_iter()
        .chain([&mut manifest.runtime])
        .for_each(trim);
    if manifest.schema_version.is_empty() {
        "1".clone_into(&mut manifest.schema_version);
    }
    if manifest.runtime.is_empty() {
        manifest.runtime.clone_from(&manifest.name);
    }
    for text in [&mut manifest.checksum, &mut manifest.image, &mut manifest.image_digest] {
        trim_some(text);
    }
    trim_some(&mut manifest.openapi);
    if let Some(rootfs) = &mut manifest.rootfs {
        trim(&mut rootfs.url);
        trim_some(&mut rootfs.checksum);
    }
    if let Some(initramfs) = &mut manifest.initramfs {
        trim(&mut initramfs.url);
        trim_some(&mut initramfs.checksum);
    }
    for disk in &mut manifest.disks {
        [&mut disk.name, &mut disk.source].into_iter().for_each(trim);
        trim_some(&mut disk.checksum);
    }
    manifest.actions.retain(|name, _| !name.trim().is_empty());
    for action in manifest.actions.values_mut() {
        action.method = action.method.trim().to_ascii_uppercase();
        trim(&mut action.path);
    }
    if let Some(workload) = &mut manifest.workload {
        trim_some(&mut workload.base_url);
        trim_some(&mut workload.workdir);
        if let crate::plugin::manifest::Words::Many(words) = &mut workload.entrypoint {
            words.retain(|word| !word.is_empty());
        }
        workload.env.retain(|name, _| !name.trim().is_empty());
    }
    manifest.env.retain(|name, _| !name.trim().is_empty());
    manifest.health_check.take_if(|check| check.endpoint.trim().is_empty());
    let labels = [("volant.plugin", &manifest.name), ("volant.runtime", &manifest.runtime)];
    for (name, value) in labels.map(|(name, value)| (name.to_owned(), value.clone())) {
        manifest.labels.insert(name, value);
    }
}

/// Collects refusals.
struct Check {
    refused: Vec<Refused>,
}

impl Check {
    fn rule(&mut self, holds: bool, pointer: impl Into<String>, reason: impl Into<String>) {
        if !holds {
            self.refused.push(Refused::new(pointer, reason));
        }
    }

    fn url(&mut self, url: &str, pointer: &str) {
        self.rule(is_url(url), pointer, URL_RULE);
    }

    fn checksum(&mut self, checksum: Option<&str>, pointer: &str) {
        self.rule(checksum.is_none_or(is_checksum), pointer, CHECKSUM_RULE);
    }
}

/// The rule for a place that bytes come from.
pub const URL_RULE: &str = "begins with http://, https://, file:// or /";
/// The rule for a checksum.
pub const CHECKSUM_RULE: &str = "sha256: and 64 hexadecimal digits, or at least 32 alone";

/// Whether [`URL_RULE`] holds.
pub fn is_url(url: &str) -> bool {
    let known = ["http://", "https://", "file://", "/"];
    known.iter().any(|begin| url.starts_with(begin) && begin.len() < url.len()) && is_text(url)
}

/// Whether [`CHECKSUM_RULE`] holds.
pub fn is_checksum(checksum: &str) -> bool {
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
    match checksum.split_once(':') {
        Some(("sha256", digits)) => digits.len() == 64 && hex(digits),
        Some(_) => false,
        None => 32 <= checksum.len() && hex(checksum),
    }
}

/// Whether a text is short and without control characters.
pub fn is_text(text: &str) -> bool {
    text.len() <= TEXT_LEN_MAX && !text.chars().any(char::is_control)
}

fn is_request_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= TEXT_LEN_MAX
        && path.chars().all(|c| matches!(c, '!'..='~') && c != '#')
}

/// Every rule on a normalized manifest.
pub fn check(manifest: &Manifest) -> Vec<Refused> {
    let mut check = Check { refused: Vec::new() };
    identity(&mut check, manifest);
    media(&mut check, manifest);
    resources(&mut check, manifest);
    let name_len = |name: &String| (1..=63).contains(&name.chars().count());
    check.rule(
        manifest.actions.len() <= ACTIONS_MAX,
        "/actions",
        format!("at most {ACTIONS_MAX} actions"),
    );
    for (name, action) in &manifest.actions {
        let pointer = format!("/actions/{}", escaped(name));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let good = name_len(name) && name.chars().all(plain);
        check.rule(good, &pointer, "a name is 1 to 63 letters, digits, '.', '_', '-'");
        self::action(&mut check, manifest, action, &pointer);
    }
    workload_section(&mut check, manifest);
    if let Some(health) = &manifest.health {
        self::health(&mut check, manifest, health);
    }
    ports(&mut check, &manifest.ports, "/ports");
    volumes(&mut check, &manifest.volumes);
    if let Some(cloud_init) = &manifest.cloud_init {
        self::cloud_init(&mut check, cloud_init);
    }
    if let Some(network) = &manifest.network {
        self::network(&mut check, network);
    }
    if let Some(devices) = &manifest.devices {
        self::devices(&mut check, devices);
    }
    if let Some(openapi) = &manifest.openapi {
        check.url(openapi, "/openapi");
    }
    if let Some(agui) = &manifest.agui {
        let is_one = manifest.actions.get(agui).is_some_and(|action| action.method == "POST");
        check.rule(is_one, "/agui", "names an action whose method is POST");
    }
    labels(&mut check, manifest);
    check.refused
}

fn identity(check: &mut Check, manifest: &Manifest) {
    let known = ["1", "1.0", "v1"];
    let version = manifest.schema_version.as_str();
    check.rule(known.contains(&version), "/schema_version", "1, 1.0 or v1 is what is known here");
    let words = [
        ("/name", PluginName::try_from(manifest.name.as_str()).err()),
        ("/version", PluginVersion::try_from(manifest.version.as_str()).err()),
        ("/runtime", PluginName::try_from(manifest.runtime.as_str()).err()),
    ];
    for (pointer, error) in words {
        if let Some(error) = error {
            check.rule(false, pointer, error.to_string());
        }
    }
}

fn media(check: &mut Check, manifest: &Manifest) {
    let Manifest { rootfs, initramfs, image, .. } = manifest;
    check.rule(
        rootfs.is_some() || initramfs.is_some() || image.is_some(),
        "",
        "one of rootfs, initramfs and image is needed",
    );
    check.rule(
        rootfs.is_none() || image.is_none(),
        "/image",
        "a root is either a rootfs or an image",
    );
    if let Some(rootfs) = rootfs {
        check.url(&rootfs.url, "/rootfs/url");
        check.checksum(rootfs.checksum.as_deref(), "/rootfs/checksum");
    }
    if let Some(initramfs) = initramfs {
        if initramfs.url != BUILTIN_INITRAMFS {
            check.url(&initramfs.url, "/initramfs/url");
        }
        check.checksum(initramfs.checksum.as_deref(), "/initramfs/checksum");
    }
    check.checksum(manifest.checksum.as_deref(), "/checksum");
    if let Some(image) = image {
        let plain = image.chars().all(|c| matches!(c, '!'..='~'));
        check.rule(plain && image.len() <= TEXT_LEN_MAX, "/image", "a reference without spaces");
    }
    if let Some(digest) = &manifest.image_digest {
        check.rule(image.is_some(), "/image_digest", "there is no image");
        check.checksum(Some(digest), "/image_digest");
    }
    let max = VmSpec::DISKS_MAX;
    check.rule(manifest.disks.len() <= max, "/disks", format!("at most {max} disks"));
    for (index, disk) in manifest.disks.iter().enumerate() {
        let at = |field| format!("/disks/{index}/{field}");
        check.rule(!disk.name.is_empty() && is_text(&disk.name), at("name"), "must not be empty");
        check.url(&disk.source, &at("source"));
        check.checksum(disk.checksum.as_deref(), &at("checksum"));
        let known = matches!(disk.format, Format::Raw | Format::Qcow2);
        check.rule(known, at("format"), "raw or qcow2");
    }
}

fn resources(check: &mut Check, manifest: &Manifest) {
    let (vcpus, memory) = (manifest.resources.cpu_cores, manifest.resources.memory_mb);
    let max = VmSpec::VCPUS_MAX;
    check.rule(
        (1..=max).contains(&vcpus),
        "/resources/cpu_cores",
        format!("1 to {max}, not {vcpus}"),
    );
    let (min, max) = (VmSpec::MEMORY_MIB_MIN, VmSpec::MEMORY_MIB_MAX);
    check.rule(
        (min..=max).contains(&memory),
        "/resources/memory_mb",
        format!("{min} to {max}, not {memory}"),
    );
}

fn action(check: &mut Check, manifest: &Manifest, action: &Action, pointer: &str) {
    let known = METHODS.contains(&action.method.as_str());
    check.rule(known, format!("{pointer}/method"), format!("one of {}", METHODS.join(", ")));
    check.rule(
        is_request_path(&action.path),
        format!("{pointer}/path"),
        "begins with '/', printable ASCII without spaces and '#'",
    );
    check.rule(
        action.timeout_ms <= ACTION_TIMEOUT_MS_MAX,
        format!("{pointer}/timeout_ms"),
        format!("at most {ACTION_TIMEOUT_MS_MAX}"),
    );
    port_is_known(check, manifest, action.port, &format!("{pointer}/port"));
    if let Some(input) = &action.input {
        let pointer = format!("{pointer}/input");
        let is_object = input.get("type").is_some_and(|kind| kind == "object");
        check.rule(is_object, &pointer, "a JSON Schema with the type object");
        let text = serde_json::Value::from(input.clone()).to_string();
        let is_small = text.len() <= INPUT_LEN_MAX;
        check.rule(is_small, &pointer, format!("at most {INPUT_LEN_MAX} bytes"));
        // It becomes a part of other documents, where a reference would lead elsewhere.
        check.rule(!text.contains("\"$ref\":"), &pointer, "whole in itself, without $ref");
    }
}

fn port_is_known(check: &mut Check, manifest: &Manifest, port: Option<u16>, pointer: &str) {
    let known = port.or_else(|| workload::default_port(manifest));
    let reason = "1 to 65535; needed without a base_url and ports";
    check.rule(known.is_some_and(|port| port != 0), pointer, reason);
}

/// A server on the guest's loopback.
pub fn base_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    if uri.scheme() != Some(&Scheme::HTTP) {
        return Err("begins with http://");
    }
    let local = ["127.0.0.1", "localhost", "0.0.0.0", "[::1]"];
    if !uri.host().is_some_and(|host| local.contains(&host)) {
        return Err("names the guest's own loopback: 127.0.0.1 or localhost");
    }
    if uri.port_u16() == Some(0) || uri.query().is_some() {
        return Err("has a port from 1 to 65535 and no query");
    }
    Ok(uri)
}

fn workload_section(check: &mut Check, manifest: &Manifest) {
    check.rule(
        manifest.agent || manifest.workload.is_none(),
        "/workload",
        "nobody would start it without an agent",
    );
    let Some(section) = &manifest.workload else {
        let reason = "needed unless there is an image, or no agent";
        let without_agent = manifest.rootfs.is_some() && !manifest.agent;
        return check.rule(manifest.image.is_some() || without_agent, "/workload", reason);
    };
    let WorkloadSection { kind, base_url: url, entrypoint, .. } = section;
    match url {
        Some(url) => {
            if let Err(reason) = base_url(url) {
                check.rule(false, "/workload/base_url", reason);
            }
        }
        None => check.rule(*kind == WorkloadKind::Exec, "/workload/base_url", "needed for http"),
    }
    let named = entrypoint.as_slice().first().is_some_and(|word| !word.trim().is_empty());
    check.rule(
        named || manifest.image.is_some() && entrypoint.as_slice().is_empty(),
        "/workload/entrypoint",
        "must name a program",
    );
    if let Some(signal) = &section.stop_signal {
        let known = volant_protocol::signal_number(signal).is_some();
        check.rule(known, "/workload/stop_signal", "a signal's name or number, e.g. SIGTERM");
    }
    if named && let Err(refused) = workload::of(manifest) {
        check.refused.push(refused);
    }
}

fn health(check: &mut Check, manifest: &Manifest, health: &Health) {
    let kinds = [health.http.is_some(), health.tcp.is_some(), health.exec.is_some()];
    let count = kinds.into_iter().filter(|given| *given).count();
    check.rule(count == 1, "/health", "exactly one of http, tcp and exec");
    check.rule(manifest.health_check.is_none(), "/health_check", "excluded by health");
    if let Some(http) = &health.http {
        check.rule(is_request_path(&http.path), "/health/http/path", "begins with '/'");
        port_is_known(check, manifest, http.port, "/health/http/port");
    }
    if let Some(tcp) = &health.tcp {
        port_is_known(check, manifest, tcp.port, "/health/tcp/port");
    }
}

fn ports(check: &mut Check, ports: &[Port], pointer: &str) {
    check.rule(ports.len() <= ITEMS_MAX, pointer, format!("at most {ITEMS_MAX} ports"));
    for (index, port) in ports.iter().enumerate() {
        check.rule(port.port != 0, format!("{pointer}/{index}/port"), "1 to 65535");
        let same = |other: &Port| (other.port, other.protocol) == (port.port, port.protocol);
        let twice = ports[..index].iter().any(same);
        check.rule(!twice, format!("{pointer}/{index}"), "the same port twice");
    }
}

fn volumes(check: &mut Check, volumes: &[Volume]) {
    check.rule(volumes.len() <= ITEMS_MAX, "/volumes", format!("at most {ITEMS_MAX} volumes"));
    for (index, volume) in volumes.iter().enumerate() {
        let at = |field| format!("/volumes/{index}/{field}");
        if let Err(error) = PluginName::try_from(volume.name.as_str()) {
            check.rule(false, at("name"), error.to_string());
        }
        let plain = volume.path.starts_with('/')
            && is_text(&volume.path)
            && volume.path.split('/').all(|part| part != "..");
        check.rule(plain, at("path"), "an absolute path without '..'");
        let (min, max) = (model::Volume::MIB_MIN, model::Volume::MIB_MAX);
        let fits = volume.size_mb.is_none_or(|mib| (min..=max).contains(&mib));
        check.rule(fits, at("size_mb"), format!("{min} to {max}"));
        let twice = volumes[..index].iter().any(|other| other.path == volume.path);
        check.rule(!twice, at("path"), "the same path twice");
    }
}

fn cloud_init(check: &mut Check, seed: &CloudInit) {
    let is = |value: &Option<String>, word: &str| {
        value.as_deref().is_none_or(|value| value.eq_ignore_ascii_case(word))
    };
    check.rule(is(&seed.datasource, "NoCloud"), "/cloud_init/datasource", "NoCloud");
    check.rule(is(&seed.seed_mode, "vfat"), "/cloud_init/seed_mode", "vfat");
    let documents = [
        ("user_data", &seed.user_data),
        ("meta_data", &seed.meta_data),
        ("network_config", &seed.network_config),
    ];
    for (name, document) in documents {
        let Some(SeedDocument { inline, content, path }) = document else { continue };
        let pointer = format!("/cloud_init/{name}");
        let both = content.is_some() && path.is_some();
        check.rule(!both, &pointer, "content or path, not both");
        let inline_fits = match inline {
            Some(true) => path.is_none(),
            Some(false) => content.is_none(),
            None => true,
        };
        let reason = "true with content, false with path";
        check.rule(both || inline_fits, format!("{pointer}/inline"), reason);
        let reason = "a file is read by `volantd ctl`; the API takes content";
        check.rule(both || path.is_none(), format!("{pointer}/path"), reason);
    }
}

fn network(check: &mut Check, network: &NetworkSection) {
    let cidr = |text: &str| {
        text.split_once('/').is_some_and(|(address, len)| {
            address.parse::<Ipv4Addr>().is_ok() && len.parse().is_ok_and(|len: u8| len <= 32)
        })
    };
    let subnet = network.subnet.as_deref();
    check.rule(subnet.is_none_or(cidr), "/network/subnet", "a network as in 10.0.0.0/24");
    let gateway = network.gateway.as_deref();
    let good = gateway.is_none_or(|text| text.parse::<Ipv4Addr>().is_ok());
    check.rule(good, "/network/gateway", "an IPv4 address");
    let assigned = gateway.is_some() || network.auto_assign == Some(true);
    check.rule(
        network.mode != NetworkMode::Bridged || subnet.is_none() || assigned,
        "/network/subnet",
        "a bridged subnet needs a gateway or auto_assign",
    );
    ports(check, &network.expose, "/network/expose");
}

fn devices(check: &mut Check, devices: &Devices) {
    let hex =
        |text: &str, len: usize| text.len() == len && text.chars().all(|c| c.is_ascii_hexdigit());
    let address = |text: &str| {
        let parts: Vec<&str> = text.split([':', '.']).collect();
        matches!(parts[..], [domain, bus, device, function]
            if hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1))
            && text.matches(':').count() == 2
    };
    for (index, text) in devices.pci_passthrough.iter().enumerate() {
        let pointer = format!("/devices/pci_passthrough/{index}");
        check.rule(address(text), pointer, "a PCI address as in 0000:01:00.0");
    }
    for (index, text) in devices.allowlist.iter().enumerate() {
        let good = text
            .split_once(':')
            .is_some_and(|(vendor, device)| hex(vendor, 4) && (device == "*" || hex(device, 4)));
        check.rule(good, format!("/devices/allowlist/{index}"), "a pattern as in 10de:*");
    }
}

fn labels(check: &mut Check, manifest: &Manifest) {
    let count = manifest.labels.len();
    check.rule(count <= ITEMS_MAX, "/labels", format!("at most {ITEMS_MAX} labels"));
    for (name, value) in &manifest.labels {
        if let Err(reason) = label(name, value) {
            check.rule(false, format!("/labels/{}", escaped(name)), reason);
        }
    }
}

/// Whether a label can be kept.
///
/// # Errors
/// The rule that it breaks.
pub fn label(name: &str, value: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if name.is_empty() || LABEL_LEN_MAX < name.len() || !name.chars().all(plain) {
        return Err("a label's name is 1 to 256 letters, digits, '.', '_', '-', '/'");
    }
    if LABEL_LEN_MAX < value.len() || value.chars().any(char::is_control) {
        return Err("a label's value is at most 256 printable characters");
    }
    Ok(())
}
