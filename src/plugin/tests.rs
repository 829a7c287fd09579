use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::model::{
    Digest, Disk, Exposure, Medium, MediumFormat, MediumRole, Transport, VmName, VolumeMount,
    VolumeName,
};

/// A manifest with every field, in the shapes of the original and of this version.
fn full() -> Value {
    json!({
        "schema_version": "1.0",
        "name": "shop",
        "version": "2.1.0",
        "runtime": "web",
        "initramfs": { "url": "file:///images/shop.cpio" },
        "disks": [{ "name": "data", "source": "/disks/data.raw", "readonly": true, "target": "vdb" }],
        "resources": { "cpu_cores": 2, "memory_mb": 512 },
        "actions": {
            "buy": { "description": "Buys", "method": "post", "path": "/buy", "timeout_ms": 5000 },
            "list": { "method": "GET", "path": "/list?all=1", "port": 9000 }
        },
        "health": {
            "http": { "path": "/ready" }, "interval_ms": 500, "timeout_ms": 400, "retries": 2,
            "start_period_ms": 1000
        },
        "workload": {
            "type": "http", "base_url": "http://127.0.0.1:8080/api/", "entrypoint": ["/bin/shop"],
            "args": ["--port", "8080"], "env": { "A": "workload", "B": "workload" },
            "workdir": "/srv", "user": "33:33", "stop_signal": "SIGQUIT",
            "restart": { "policy": "always", "backoff_min_ms": 10, "backoff_max_ms": 100, "retries_max": 4 }
        },
        "env": { "A": "manifest", "C": "manifest" },
        "ports": [{ "port": 8080, "name": "http" }, { "port": 8080, "protocol": "udp" }],
        "network": { "mode": "bridged" },
        "devices": { "allowlist": ["10de:*", "10de:2204"] },
        "enabled": true,
        "openapi": "https://example.com/openapi.json",
        "labels": { "tier": "front" }
    })
}

fn read(value: &Value) -> Result<Manifest, InvalidManifest> {
    manifest(value.to_string().as_bytes(), Language::Json)
}

fn pointers(value: &Value) -> Vec<String> {
    let refused = read(value).expect_err("a refusal").refused;
    refused.into_iter().map(|refused| refused.pointer).collect()
}

/// `document` with the member at `pointer` set, or removed by null.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match parent {
        Value::Object(members) => _ = members.insert(name.to_owned(), value),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no members"),
    }
    document
}

fn request(name: &str) -> VmRequest {
    VmRequest::named(VmName::try_from(name).unwrap())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn each_rule_refuses_by_field_and_reason() {
    let long = "x".repeat(300);
    let checksum = format!("sha256:{}", "0".repeat(63));
    let table: Vec<(&str, Value, &str, &str)> = vec![
        ("/schema_version", json!("2"), "/schema_version", "known here"),
        ("/name", json!(" "), "/name", "1 to 63"),
        ("/name", json!("a/b"), "/name", "1 to 63"),
        ("/name", Value::Null, "", "missing field `name`"),
        ("/version", json!(""), "/version", "1 to 63"),
        ("/version", json!(2), "/version", "expected a string"),
        ("/runtime", json!("../x"), "/runtime", "1 to 63"),
        ("/initramfs", Value::Null, "", "one of rootfs, initramfs and image"),
        ("/initramfs/url", json!("ftp://example.com/a"), "/initramfs/url", "begins with"),
        ("/initramfs/url", json!("images/a"), "/initramfs/url", "begins with"),
        ("/initramfs/url", json!("https://"), "/initramfs/url", "begins with"),
        ("/initramfs/checksum", json!("abc"), "/initramfs/checksum", "hexadecimal"),
        ("/initramfs/checksum", json!(checksum), "/initramfs/checksum", "hexadecimal"),
        ("/initramfs/checksum", json!("md5:0011"), "/initramfs/checksum", "hexadecimal"),
        ("/rootfs", json!({ "url": "x" }), "/rootfs/url", "begins with"),
        ("/rootfs", json!({ "url": "/x", "format": "iso" }), "/rootfs/format", "unknown variant"),
        ("/rootfs", json!({ "url": "/x", "checksum": "1" }), "/rootfs/checksum", "hexadecimal"),
        ("/checksum", json!("1234"), "/checksum", "hexadecimal"),
        ("/image", json!("a b"), "/image", "reference"),
        ("/image_digest", json!("0".repeat(64)), "/image_digest", "no image"),
        ("/disks/0/name", json!(""), "/disks/0/name", "empty"),
        ("/disks/0/source", json!("data.raw"), "/disks/0/source", "begins with"),
        ("/disks/0/checksum", json!("zz"), "/disks/0/checksum", "hexadecimal"),
        ("/disks/0/format", json!("erofs"), "/disks/0/format", "raw or qcow2"),
        ("/resources", Value::Null, "", "missing field `resources`"),
        ("/resources/cpu_cores", json!(0), "/resources/cpu_cores", "1 to 32"),
        ("/resources/cpu_cores", json!(-1), "/resources/cpu_cores", "invalid value"),
        ("/resources/memory_mb", json!(0), "/resources/memory_mb", "64 to"),
        ("/actions/buy/method", Value::Null, "/actions/buy", "missing field `method`"),
        ("/actions/buy/method", json!("FETCH"), "/actions/buy/method", "one of GET"),
        ("/actions/buy/path", Value::Null, "/actions/buy", "missing field `path`"),
        ("/actions/buy/path", json!("buy"), "/actions/buy/path", "begins with"),
        ("/actions/buy/path", json!("/a b"), "/actions/buy/path", "begins with"),
        ("/actions/buy/timeout_ms", json!(-1), "/actions/buy/timeout_ms", "invalid value"),
        ("/actions/buy/timeout_ms", json!(99_999_999), "/actions/buy/timeout_ms", "at most"),
        ("/actions/list/port", json!(0), "/actions/list/port", "1 to 65535"),
        ("/actions/buy/input", json!({ "type": "string" }), "/actions/buy/input", "type object"),
        (
            "/actions/buy/input",
            json!({ "type": "object", "$ref": "#" }),
            "/actions/buy/input",
            "without $ref",
        ),
        ("/actions/a~1b", json!({ "method": "GET", "path": "/" }), "/actions/a~01b", "letters"),
        ("/health/tcp", json!({}), "/health", "exactly one"),
        ("/health/http", Value::Null, "/health", "exactly one"),
        ("/health/http/path", json!("ready"), "/health/http/path", "begins with"),
        ("/health/http/port", json!(70000), "/health/http/port", "invalid value"),
        ("/health/interval_ms", json!(0), "/health/interval_ms", "50 to"),
        ("/health/timeout_ms", json!(0), "/health/timeout_ms", "1 to"),
        ("/health/retries", json!(0), "/health/retries", "1 to"),
        ("/health/start_period_ms", json!(9_999_999), "/health/start_period_ms", "0 to"),
        ("/health_check", json!({ "endpoint": "/x" }), "/health_check", "excluded"),
        ("/workload", Value::Null, "/workload", "needed unless"),
        ("/workload/type", json!("ftp"), "/workload/type", "unknown variant"),
        ("/workload/base_url", Value::Null, "/workload/base_url", "needed for http"),
        ("/workload/base_url", json!("127.0.0.1:80"), "/workload/base_url", "http://"),
        ("/workload/base_url", json!("https://127.0.0.1"), "/workload/base_url", "http://"),
        ("/workload/base_url", json!("http://example.com"), "/workload/base_url", "loopback"),
        ("/workload/entrypoint", json!([]), "/workload/entrypoint", "name a program"),
        ("/workload/entrypoint", json!([" "]), "/workload/entrypoint", "name a program"),
        ("/workload/entrypoint", json!({}), "/workload/entrypoint", "did not match"),
        ("/workload/args", json!(["a\u{0}"]), "/workload/entrypoint", "zero byte"),
        ("/workload/env", json!({ "A=B": "" }), "/workload/env", "without '='"),
        ("/workload/workdir", json!("srv"), "/workload/workdir", "absolute"),
        ("/workload/user", json!("a b"), "/workload/user", "uid"),
        ("/workload/stop_signal", json!("SIGNAL"), "/workload/stop_signal", "signal"),
        ("/workload/restart/policy", json!("often"), "/workload/restart/policy", "unknown variant"),
        ("/workload/restart/backoff_min_ms", json!(0), "/workload/restart", "backoff_min_ms"),
        ("/workload/restart/backoff_min_ms", json!(500), "/workload/restart", "backoff_min_ms"),
        ("/ports/0/port", json!(0), "/ports/0/port", "1 to 65535"),
        ("/ports/1/protocol", json!("sctp"), "/ports/1/protocol", "unknown variant"),
        ("/ports/1/protocol", json!("tcp"), "/ports/1", "twice"),
        ("/volumes", json!([{ "name": "", "path": "/a" }]), "/volumes/0/name", "1 to 63"),
        ("/volumes", json!([{ "name": "a", "path": "a" }]), "/volumes/0/path", "absolute"),
        ("/volumes", json!([{ "name": "a", "path": "/a/../b" }]), "/volumes/0/path", "'..'"),
        (
            "/volumes",
            json!([{ "name": "a", "path": "/a", "size_mb": 0 }]),
            "/volumes/0/size_mb",
            "64",
        ),
        ("/cloud_init", json!({ "datasource": "EC2" }), "/cloud_init/datasource", "NoCloud"),
        ("/cloud_init", json!({ "seed_mode": "iso" }), "/cloud_init/seed_mode", "vfat"),
        (
            "/cloud_init",
            json!({ "user_data": { "content": "a", "path": "b" } }),
            "/cloud_init/user_data",
            "not both",
        ),
        (
            "/cloud_init",
            json!({ "meta_data": { "content": "a", "inline": false } }),
            "/cloud_init/meta_data/inline",
            "true with content",
        ),
        (
            "/cloud_init",
            json!({ "network_config": { "path": "/etc/shadow" } }),
            "/cloud_init/network_config/path",
            "ctl",
        ),
        ("/network", json!({}), "/network", "missing field `mode`"),
        ("/network/mode", json!(""), "/network/mode", "unknown variant"),
        ("/network/subnet", json!("10.0.0.0"), "/network/subnet", "10.0.0.0/24"),
        ("/network/subnet", json!("10.0.0.0/24"), "/network/subnet", "gateway or auto_assign"),
        ("/network/gateway", json!("host"), "/network/gateway", "IPv4"),
        ("/devices/pci_passthrough", json!(["01:00.0"]), "/devices/pci_passthrough/0", "0000:01"),
        ("/devices/allowlist/0", json!("10de"), "/devices/allowlist/0", "10de:*"),
        ("/enabled", json!("yes"), "/enabled", "expected a boolean"),
        ("/openapi", json!("openapi.json"), "/openapi", "begins with"),
        ("/agui", json!("none"), "/agui", "names an action"),
        ("/labels/tier", json!(long), "/labels/tier", "256"),
        ("/labels/a b", json!(""), "/labels/a b", "letters"),
    ];
    read(&full()).unwrap();
    for (pointer, value, field, reason) in table {
        let document = with(full(), pointer, value.clone());
        let refused = read(&document).expect_err(pointer).refused;
        let told = refused.iter().find(|refused| refused.pointer == field);
        let told = told.unwrap_or_else(|| panic!("{pointer} = {value}: {refused:?}"));
        assert!(told.reason.contains(reason), "{pointer} = {value}: {told:?}");
    }
}

#[test]
fn unknown_fields_are_told_by_pointer_all_at_once() {
    let mut document = with(full(), "/naem", json!("x"));
    document = with(document, "/workload/restart/polcy", json!("x"));
    document = with(document, "/disks/0/a~1b", json!("x"));
    document = with(document, "/actions/buy/timeout", json!(1));
    let mut told = pointers(&document);
    told.sort();
    let expected = ["/actions/buy/timeout", "/disks/0/a~01b", "/naem", "/workload/restart/polcy"];
    assert_eq!(told, expected);
}

#[test]
fn every_broken_rule_is_told_and_the_list_is_bounded() {
    let document = with(full(), "/resources", json!({ "cpu_cores": 0, "memory_mb": 1 }));
    assert_eq!(pointers(&document), ["/resources/cpu_cores", "/resources/memory_mb"]);
    let ports: Vec<Value> = (0..60).map(|_| json!({ "port": 0 })).collect();
    assert_eq!(pointers(&with(full(), "/ports", json!(ports))).len(), 32);
}

#[test]
fn json_yaml_and_toml_say_the_same() {
    let json = full();
    let expected = read(&json).unwrap();
    let yaml = serde_yaml_ng::to_string(&json).unwrap();
    assert_eq!(manifest(yaml.as_bytes(), Language::Yaml).unwrap(), expected);
    let toml = toml::to_string(&json).unwrap();
    assert_eq!(manifest(toml.as_bytes(), Language::Toml).unwrap(), expected);
    // What is stored is what was read.
    let again = serde_json::to_vec(&expected).unwrap();
    assert_eq!(manifest(&again, Language::Json).unwrap(), expected);
}

#[test]
fn what_is_no_document_is_refused() {
    let huge = vec![b' '; DOCUMENT_LEN_MAX + 1];
    let deep = "[".repeat(100_000);
    // Nine levels of nine aliases each.
    let mut bomb = "a0: &a0 x\n".to_owned();
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let table: [(&[u8], Language); 9] = [
        (b"", Language::Json),
        (b"[]", Language::Json),
        (b"{", Language::Json),
        (b"\xff", Language::Yaml),
        (&huge, Language::Json),
        (deep.as_bytes(), Language::Json),
        (deep.as_bytes(), Language::Yaml),
        (bomb.as_bytes(), Language::Yaml),
        (b"name = ", Language::Toml),
    ];
    for (document, language) in table {
        let began = std::time::Instant::now();
        assert!(manifest(document, language).is_err(), "{language:?}");
        assert!(began.elapsed().as_secs() < 60, "{language:?} took too long");
    }
}

/// Documents as the original Volant and its image builder write them.
#[test]
fn documents_of_the_original_parse() {
    let document = |text| serde_json::from_str::<Value>(text).unwrap();
    let http = document(include_str!("../../tests/golden/original-echo.json"));
    let manifest_of = read(&http).unwrap();
    assert_eq!(manifest_of.labels, map(&[("volant.plugin", "echo"), ("volant.runtime", "echo")]));
    let workload = manifest_of.workload.unwrap();
    assert_eq!((workload.entrypoint.as_slice().len(), workload.env.len()), (1, 0));

    let appliance = document(include_str!("../../tests/golden/original-appliance.json"));
    let read_of = read(&appliance).unwrap();
    assert_eq!((read_of.name.as_str(), read_of.runtime.as_str()), ("appliance", "appliance"));
    assert!(read_of.enabled, "an omitted `enabled` is enabled");

    let built = r#"
        schema_version = "v1"
        name = "worker"
        version = "0.3.0"
        image = "docker.io/library/worker:3"
        [resources]
        cpu_cores = 1
        memory_mb = 256
        [workload]
        entrypoint = "/usr/bin/worker"
        args = ["--serve"]
        [env]
        LEVEL = "info"
        [network]
        mode = "bridged"
        expose = [{ port = 8080, protocol = "tcp", host_port = 18080 }]
    "#;
    let built = manifest(built.as_bytes(), Language::Toml).unwrap();
    assert_eq!(built.workload.unwrap().entrypoint.as_slice(), ["/usr/bin/worker"]);
}

#[test]
fn the_request_wins_over_the_manifest_and_the_manifest_over_the_system() {
    let manifest = read(&full()).unwrap();
    let plain = merge(Some(&manifest), request("vm")).unwrap();
    assert_eq!((plain.spec.vcpus, plain.spec.memory_mib), (2, 512));
    assert_eq!(plain.spec.initramfs, Some(PathBuf::from("/images/shop.cpio")));
    let data = Disk { path: "/disks/data.raw".into(), readonly: true, private: false };
    assert_eq!(plain.spec.disks, std::slice::from_ref(&data));
    assert_eq!(plain.spec.env, map(&[("A", "manifest"), ("C", "manifest")]));
    assert_eq!(plain.runtime, "web");
    let plugin = plain.plugin.unwrap();
    assert_eq!((plugin.name.as_str(), plugin.version.as_str()), ("shop", "2.1.0"));
    let own = [("tier", "front"), ("volant.plugin", "shop"), ("volant.runtime", "web")];
    assert_eq!(plain.labels, map(&own));
    let workload = plain.spec.workload.unwrap().plain().clone();
    assert_eq!(workload.argv, ["/bin/shop", "--port", "8080"]);
    assert_eq!(workload.env, map(&[("A", "workload"), ("B", "workload")]));
    assert_eq!(workload.cwd.as_deref(), Some("/srv"));
    assert_eq!((workload.user.as_deref(), workload.stop_signal), (Some("33:33"), Some(3)));
    assert_eq!(workload.restart.policy, volant_protocol::RestartPolicy::Always);
    assert_eq!(workload.restart.retries_max, Some(4));
    let health = workload.health.unwrap();
    let path = "/api/ready".to_owned();
    assert_eq!(health.probe, volant_protocol::Probe::Http { port: 8080, path });
    assert_eq!((health.interval_ms, health.timeout_ms, health.retries), (500, 400, 2));

    let own_disk = Disk { path: "/disks/own".into(), readonly: false, private: false };
    let merged = merge(
        Some(&manifest),
        VmRequest {
            vcpus: Some(1),
            memory_mib: Some(128),
            initramfs: Some("/own.cpio".into()),
            env: map(&[("A", "request"), ("D", "request")]),
            labels: map(&[("tier", "back"), ("volant.plugin", "forged")]),
            disks: vec![own_disk.clone()],
            runtime: Some("web".to_owned()),
            ..request("vm")
        },
    )
    .unwrap();
    assert_eq!((merged.spec.vcpus, merged.spec.memory_mib), (1, 128));
    assert_eq!(merged.spec.initramfs, Some(PathBuf::from("/own.cpio")));
    assert_eq!(merged.spec.disks, [data, own_disk]);
    assert_eq!(merged.spec.env, map(&[("A", "request"), ("C", "manifest"), ("D", "request")]));
    assert_eq!(merged.spec.workload.unwrap().plain().env, map(&[("B", "workload")]));
    assert_eq!(
        (merged.labels["tier"].as_str(), merged.labels["volant.plugin"].as_str()),
        ("back", "shop")
    );

    let system = merge(None, request("vm")).unwrap();
    assert_eq!((system.spec.vcpus, system.spec.memory_mib), (1, 256));
    assert_eq!(
        (system.runtime.as_str(), system.plugin, system.spec.workload),
        ("default", None, None)
    );
}

#[test]
fn a_manifests_volumes_are_the_vms_own() {
    let volumes = json!([
        { "name": "data", "path": "/data", "size_mb": 64 },
        { "name": "models", "path": "/models", "readonly": true },
        { "name": "cache", "path": "/cache" },
    ]);
    let manifest = read(&with(full(), "/volumes", volumes)).unwrap();
    let mount = |volume: &str, path: &str, readonly, make_mib| VolumeMount {
        volume: VolumeName::try_from(volume).unwrap(),
        path: path.to_owned(),
        readonly,
        make_mib,
    };
    let mine = mount("other", "/cache", false, None);
    let asked = VmRequest { volumes: vec![mine.clone()], ..request("vm") };
    let merged = merge(Some(&manifest), asked).unwrap();
    let own = mount("vm-data", "/data", false, Some(64));
    let shared = mount("models", "/models", true, None);
    assert_eq!(merged.spec.volumes, [own, shared, mine]);
    let merged = merge(Some(&manifest), request("vm")).unwrap();
    let cache = mount("vm-cache", "/cache", false, Some(10 << 10));
    assert_eq!(merged.spec.volumes[2], cache);
}

#[test]
fn what_comes_from_elsewhere_is_brought_and_has_a_checksum() {
    let sum = format!("sha256:{}", "AB".repeat(32));
    let known = Digest([0xab; 32]);
    let digest = Some(known);
    let disks = json!([
        { "name": "a", "source": "https://example.com/a.qcow2", "checksum": sum, "format": "qcow2" },
        { "name": "b", "source": "file:///disks/b", "readonly": true },
        { "name": "c", "source": "/disks/c", "checksum": "ab".repeat(32), "readonly": true },
    ]);
    let manifest = with(full(), "/disks", disks);
    let manifest = with(manifest, "/initramfs/url", json!("http://example.com/i"));
    let without = read(&manifest).unwrap();
    assert!(matches!(
        merge(Some(&without), request("vm")),
        Err(MergeError::Unsupported(refused)) if refused.reason.contains("--insecure")
    ));
    let insecure = VmRequest { insecure: true, ..request("vm") };
    let medium = |role, source: &str, digest, format| Medium {
        role,
        source: source.to_owned(),
        digest,
        format,
    };
    let a = medium(MediumRole::Disk(0), "https://example.com/a.qcow2", digest, MediumFormat::Qcow2);
    let c = medium(MediumRole::Disk(2), "/disks/c", digest, MediumFormat::Raw);
    let merged = merge(Some(&without), insecure).unwrap();
    let initramfs = medium(MediumRole::Initramfs, "http://example.com/i", None, MediumFormat::Raw);
    assert_eq!(merged.media, [initramfs, a, c]);
    let b = Disk { path: "/disks/b".into(), readonly: true, private: false };
    assert_eq!((merged.spec.disks.len(), &merged.spec.disks[1]), (3, &b));
    let own = VmRequest { initramfs: Some("/own".into()), ..request("vm") };
    assert_eq!(merge(Some(&without), own).unwrap().media.len(), 2, "the request's own wins");
    assert_eq!(digests_of(&without), [known; 2]);
}

#[test]
fn ports_of_the_manifest_lead_out_unless_the_request_leads_them_elsewhere() {
    let ports = json!([{ "port": 80, "host_port": 8080 }, { "port": 90 }, { "port": 53, "protocol": "udp", "host_port": 53 }]);
    let network = json!({ "mode": "bridged", "expose": [{ "port": 80, "host_port": 8080 }, { "port": 70, "host_port": 7000 }] });
    let manifest = read(&with(with(full(), "/ports", ports), "/network", network)).unwrap();
    let exposure = |transport, guest_port, host_port| Exposure {
        transport,
        host_ip: std::net::Ipv4Addr::UNSPECIFIED,
        host_port,
        guest_port,
    };
    let udp = exposure(Transport::Udp, 53, 53);
    let (web, other) = (exposure(Transport::Tcp, 80, 8080), exposure(Transport::Tcp, 70, 7000));
    let plain = merge(Some(&manifest), request("vm")).unwrap();
    assert_eq!(plain.exposures, [web, udp, other]);
    let own = exposure(Transport::Tcp, 80, 0);
    let asked = VmRequest { exposures: vec![own], ..request("vm") };
    assert_eq!(merge(Some(&manifest), asked).unwrap().exposures, [udp, other, own]);
}

#[test]
fn what_cannot_be_made_is_refused_by_field() {
    let manifest = read(&full()).unwrap();
    let other = VmRequest { runtime: Some("db".to_owned()), ..request("vm") };
    assert!(matches!(merge(Some(&manifest), other), Err(MergeError::Runtime { .. })));
    let label = VmRequest { labels: map(&[("a b", "")]), ..request("vm") };
    assert!(matches!(merge(None, label), Err(MergeError::Label { .. })));
    let table = [
        ("/initramfs/url", json!("https://example.com/a"), "/initramfs/url"),
        ("/initramfs/checksum", json!("0".repeat(32)), "/initramfs/url"),
        ("/rootfs", json!({ "url": "/a", "format": "xfs" }), "/rootfs/format"),
        ("/network/mode", json!("dhcp"), "/network/mode"),
        ("/devices/pci_passthrough", json!(["0000:01:00.0"]), "/devices"),
    ];
    for (pointer, value, field) in table {
        let manifest = read(&with(full(), pointer, value)).unwrap();
        match merge(Some(&manifest), request("vm")) {
            Err(MergeError::Unsupported(refused)) => assert_eq!(refused.pointer, field),
            other => panic!("{pointer}: {other:?}"),
        }
    }
}

#[test]
fn what_a_manifest_says_beside_its_image_is_kept_for_it() {
    let manifest = read(&json!({
        "name": "nginx", "version": "1", "image": "nginx:1.27",
        "image_digest": format!("sha256:{}", "ab".repeat(32)),
        "resources": { "cpu_cores": 1, "memory_mb": 256 },
        "ports": [{ "port": 80 }],
        "workload": {
            "args": ["-g", "daemon off;"], "env": { "A": "1", "B": "2" }, "stop_signal": "SIGQUIT",
            "restart": { "policy": "always" }
        },
        "health": { "http": { "path": "/" } }
    }))
    .unwrap();
    let asked = VmRequest { env: map(&[("A", "own")]), ..request("vm") };
    let new = merge(Some(&manifest), asked).unwrap();
    assert_eq!(new.spec.workload, None, "the program is the image's to say");
    let wish = new.image.unwrap();
    assert_eq!((wish.name.as_str(), wish.command.len()), ("nginx:1.27", 2));
    assert!(wish.digest.is_some());
    let said = wish.workload.unwrap();
    assert_eq!((said.argv.len(), said.stop_signal), (0, Some(3)));
    assert_eq!(said.env, map(&[("B", "2")]));
    assert_eq!(said.restart.policy, volant_protocol::RestartPolicy::Always);
    let probe = volant_protocol::Probe::Http { port: 80, path: "/".to_owned() };
    assert_eq!(said.health.unwrap().probe, probe);
}

#[test]
fn the_originals_health_check_keeps_its_meaning() {
    let mut document = with(full(), "/health", Value::Null);
    document = with(document, "/health_check", json!({ "endpoint": "/up", "timeout_ms": 300_000 }));
    let spec = merge(Some(&read(&document).unwrap()), request("vm")).unwrap().spec;
    let health = spec.workload.unwrap().plain().health.clone().unwrap();
    let path = "/api/up".to_owned();
    assert_eq!(health.probe, volant_protocol::Probe::Http { port: 8080, path });
    assert_eq!((health.start_period_ms, health.timeout_ms), (300_000, 5_000));
    let none = with(document, "/health_check", json!({ "endpoint": " " }));
    let spec = merge(Some(&read(&none).unwrap()), request("vm")).unwrap().spec;
    assert_eq!(spec.workload.unwrap().plain().health, None, "an empty endpoint is no check");
}

/// docs/plugins/manifest.schema.json is what the API serves. UPDATE_GOLDEN=1 writes it.
#[test]
fn the_shipped_schema_is_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plugins/manifest.schema.json");
    let text = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "run once with UPDATE_GOLDEN=1");
    let schema = schema();
    assert_eq!(schema["additionalProperties"], json!(false));
    let mut required: Vec<_> =
        schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    required.sort_unstable();
    assert_eq!(required, ["name", "resources", "version"]);
}

/// Any JSON, not deep.
fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("http://127.0.0.1:0/")),
        Just(json!("sha256:")),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_~/]{0,8}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Pointers to every member of a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, v)| (name.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        let pointer = format!("{at}/{name}");
        places(child, &pointer, found);
        found.push(pointer);
    }
}

proptest::proptest! {
    /// Whatever stands in one place of a document: it is refused by words, or it is a manifest that
    /// reads back as itself and that makes a VM or says why not.
    #[test]
    fn any_value_anywhere_is_refused_or_understood(
        place in proptest::prelude::any::<proptest::sample::Index>(),
        value in any_json(),
    ) {
        let mut found = Vec::new();
        places(&full(), "", &mut found);
        let pointer = &found[place.index(found.len())];
        match read(&with(full(), pointer, value)) {
            Ok(manifest) => {
                let again = serde_json::to_vec(&manifest).unwrap();
                proptest::prop_assert_eq!(super::manifest(&again, Language::Json).unwrap(), manifest.clone());
                match merge(Some(&manifest), request("vm")) {
                    Ok(new) => proptest::prop_assert!(new.spec.workload.is_some()),
                    Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
                }
            }
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
        }
    }
}
