use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::*;
use crate::model::{
    ArtifactEntry, BootFrom, BootProtocol, CloudInit, Digest, Disk, EventKind, Expiry, Image,
    ImageRoot, NetworkMode, NewVm, OnExpiry, Overlay, PluginName, PluginRef, PluginVersion, VmName,
    VmSpec, VmState, VolumeMount, VolumeName, VolumeState, Workload,
};

fn workload() -> Workload {
    let argv = vec!["httpd".to_owned(), "-f".to_owned()];
    let plain = volant_protocol::Workload { argv, ..volant_protocol::Workload::default() };
    Workload::try_from(plain).unwrap()
}

fn new(name: &str) -> NewVm {
    NewVm {
        name: VmName::try_from(name).unwrap(),
        spec: VmSpec {
            vcpus: 2,
            memory_mib: 128,
            kernel: None,
            initramfs: Some("/images/a.cpio".into()),
            kernel_cmdline: "quiet".to_owned(),
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            console: true,
            disks: vec![
                Disk { path: "/disks/a".into(), readonly: false, private: false },
                Disk { path: "/disks/b".into(), readonly: true, private: false },
            ],
            boot_protocol: BootProtocol::Pvh,
            workload: Some(workload()),
            image: Some(ImageRoot {
                reference: "docker.io/library/nginx:latest".to_owned(),
                root: Digest([7; 32]),
                folders: vec!["/data".to_owned()],
                overlay: Overlay::Persistent { mib: 1024 },
            }),
            volumes: Vec::new(),
            boot_from: BootFrom::DiskWithoutAgent,
            network: NetworkMode::Vsock,
            cloud_init: Some(CloudInit {
                user_data: Some("#cloud-config\n".to_owned()),
                ..CloudInit::default()
            }),
        },
        runtime: "default".to_owned(),
        plugin: None,
        labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
        image: None,
        media: Vec::new(),
        expiry: Some(Expiry { at_ms: 1_700_000_000_000, then: OnExpiry::Stop }),
        exposures: Vec::new(),
    }
}

async fn create(store: &Store, name: &str) -> Result<crate::model::Vm, StoreError> {
    let choose = |used: &std::collections::BTreeSet<Ipv4Addr>| {
        (2..5).map(|last| Ipv4Addr::new(10, 0, 0, last)).find(|ip| !used.contains(ip))
    };
    store.create_vm(new(name), VmState::Starting, 7, choose).await.map(|(vm, _)| vm)
}

#[tokio::test]
async fn a_vm_survives_reopening_with_all_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Store::open(&path).unwrap();
    let made = create(&store, "a").await.unwrap();
    assert_eq!(made.spec, new("a").spec);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.list_vms().await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(made.expiry, new("a").expiry);
    let changed = store.set_expiry(made.id, None, 8).await.unwrap().unwrap();
    assert_eq!((changed.expiry, changed.updated_at_ms), (None, 8));
    assert_eq!(store.list_vms().await.unwrap(), [changed]);
}

#[tokio::test]
async fn names_and_addresses_are_unique_and_freed_by_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let a = create(&store, "a").await.unwrap();
    assert!(matches!(create(&store, "a").await, Err(StoreError::NameTaken)));
    let b = create(&store, "b").await.unwrap();
    create(&store, "c").await.unwrap();
    assert!(matches!(create(&store, "d").await, Err(StoreError::NoAddress)));
    assert_eq!(store.list_vms().await.unwrap().len(), 3, "a refused VM leaves no row");
    store.delete_vm(a.id, 8).await.unwrap();
    let d = create(&store, "d").await.unwrap();
    assert_eq!((d.ip, d.id.0 > b.id.0), (a.ip, true), "addresses come back, numbers do not");
}

#[tokio::test]
async fn events_are_numbered_and_tell_of_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let vm = create(&store, "a").await.unwrap();
    let failed = VmState::Failed { reason: "why".to_owned() };
    store.set_state(vm.id, failed, EventKind::Crashed, "gone".to_owned(), 9).await.unwrap();
    store.delete_vm(vm.id, 10).await.unwrap();
    let (events, gap) = store.events_since(0, 100).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["VM_CREATED", "VM_CRASHED", "VM_DELETED"]);
    assert_eq!((gap, events[0].id), (false, 1));
    assert_eq!(store.events_since(2, 100).await.unwrap().0.len(), 1);
}

fn plugin(version: &str) -> PluginRef {
    PluginRef {
        name: PluginName::try_from("web").unwrap(),
        version: PluginVersion::try_from(version).unwrap(),
    }
}

async fn create_of(store: &Store, plugin: PluginRef) -> Result<crate::model::Vm, StoreError> {
    let new = NewVm { plugin: Some(plugin), ..new("of-plugin") };
    let choose = |_: &_| Some(Ipv4Addr::new(10, 0, 0, 2));
    store.create_vm(new, VmState::Stopped, 7, choose).await.map(|(vm, _)| vm)
}

#[tokio::test]
async fn versions_of_a_plugin_are_kept_and_do_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    store.install_plugin(plugin("1"), "one".to_owned(), Vec::new(), true, 1).await.unwrap();
    store.set_plugin_enabled(plugin("1").name, false, 2).await.unwrap();
    store.install_plugin(plugin("2"), "two".to_owned(), Vec::new(), true, 3).await.unwrap();
    let taken = store.install_plugin(plugin("1"), "other".to_owned(), Vec::new(), true, 4).await;
    assert!(matches!(taken, Err(StoreError::PluginVersionTaken)));
    let [row] = &store.list_plugins().await.unwrap()[..] else { panic!("not one plugin") };
    assert_eq!((row.current.as_str(), row.enabled), ("2", false), "a refusal changes nothing");
    assert_eq!((row.installed_at_ms, row.updated_at_ms), (1, 3));
    let versions: Vec<_> =
        row.versions.iter().map(|v| (v.version.as_str(), v.manifest.as_str())).collect();
    assert_eq!(versions, [("1", "one"), ("2", "two")]);
    store.install_plugin(plugin("1"), "one".to_owned(), Vec::new(), true, 5).await.unwrap();
    store.set_plugin_version(plugin("2"), 6).await.unwrap();
    let none = store.set_plugin_version(plugin("3"), 6).await;
    assert!(matches!(none, Err(StoreError::NoPlugin)));
    assert_eq!(store.list_plugins().await.unwrap()[0].current.as_str(), "2");
}

#[tokio::test]
async fn a_plugin_stays_while_vms_are_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    assert!(matches!(create_of(&store, plugin("1")).await, Err(StoreError::NoPlugin)));
    store.install_plugin(plugin("1"), "one".to_owned(), Vec::new(), false, 1).await.unwrap();
    assert!(matches!(create_of(&store, plugin("1")).await, Err(StoreError::NoPlugin)), "disabled");
    store.set_plugin_enabled(plugin("1").name, true, 2).await.unwrap();
    assert!(matches!(create_of(&store, plugin("2")).await, Err(StoreError::NoPlugin)));
    let vm = create_of(&store, plugin("1")).await.unwrap();
    assert_eq!(vm.plugin, Some(plugin("1")));
    let used = store.remove_plugin(plugin("1").name).await;
    assert!(matches!(used, Err(StoreError::PluginInUse { vm }) if vm == "of-plugin"));
    store.delete_vm(vm.id, 3).await.unwrap();
    store.remove_plugin(plugin("1").name).await.unwrap();
    assert!(matches!(store.remove_plugin(plugin("1").name).await, Err(StoreError::NoPlugin)));
    assert_eq!(store.list_plugins().await.unwrap(), []);
}

#[tokio::test]
async fn images_are_replaced_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let image = |reference: &str, byte: u8| Image {
        reference: reference.to_owned(),
        manifest: Digest([byte; 32]),
        config: Digest([8; 32]),
        root: Digest([9; 32]),
        root_bytes: 1 << 40,
        layer_bytes: 5,
        created_at_ms: 6,
    };
    store.put_image(image("b", 1)).await.unwrap();
    store.put_image(image("a", 2)).await.unwrap();
    store.put_image(image("b", 3)).await.unwrap();
    assert_eq!(store.list_images().await.unwrap(), [image("a", 2), image("b", 3)]);
    store.delete_image("a".to_owned()).await.unwrap();
    store.delete_image("a".to_owned()).await.unwrap();
    assert_eq!(store.list_images().await.unwrap(), [image("b", 3)]);
}

#[tokio::test]
async fn artifacts_belong_to_a_version_and_go_with_their_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let entry = |name: &str, kind: &str| ArtifactEntry {
        name: name.to_owned(),
        kind: kind.to_owned(),
        size_bytes: 7,
        ..ArtifactEntry::default()
    };
    let lost = store.put_artifact(plugin("1"), entry("a", "x"), 1).await;
    assert!(matches!(lost, Err(StoreError::NoPlugin)));
    let own = vec![entry("rootfs", "rootfs")];
    store.install_plugin(plugin("1"), "one".to_owned(), own, true, 1).await.unwrap();
    store.put_artifact(plugin("2"), entry("a", "x"), 2).await.unwrap();
    store.put_artifact(plugin("1"), entry("rootfs", "other"), 3).await.unwrap();
    let name = plugin("1").name;
    let all = store.list_artifacts(name.clone(), None).await.unwrap();
    let shown: Vec<_> = all
        .iter()
        .map(|a| (a.plugin.version.as_str(), a.entry.name.as_str(), a.entry.kind.as_str()))
        .collect();
    assert_eq!(shown, [("1", "rootfs", "other"), ("2", "a", "x")]);
    assert_eq!((all[0].created_at_ms, all[0].updated_at_ms, all[0].entry.size_bytes), (1, 3, 7));
    store.delete_artifacts(name.clone(), Some(plugin("2").version)).await.unwrap();
    assert_eq!(store.list_artifacts(name.clone(), None).await.unwrap(), all[..1]);
    store.remove_plugin(name.clone()).await.unwrap();
    assert_eq!(store.list_artifacts(name, None).await.unwrap(), []);
}

#[tokio::test]
async fn a_volume_has_one_writer_or_many_readers_and_goes_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let named = |text: &str| VolumeName::try_from(text).unwrap();
    let mount = |volume: &str, readonly, make_mib| VolumeMount {
        volume: named(volume),
        path: "/data".to_owned(),
        readonly,
        make_mib,
    };
    let create = async |vm: &str, volume| {
        let mut new = new(vm);
        new.spec.volumes = vec![volume];
        let choose = |used: &std::collections::BTreeSet<Ipv4Addr>| {
            (2..9).map(|last| Ipv4Addr::new(10, 0, 0, last)).find(|ip| !used.contains(ip))
        };
        store.create_vm(new, VmState::Stopped, 1, choose).await.map(|(vm, _)| vm)
    };
    store.create_volume(named("a"), 64, VolumeState::New, 1).await.unwrap();
    let taken = store.create_volume(named("a"), 64, VolumeState::New, 1).await;
    assert!(matches!(taken, Err(StoreError::VolumeTaken)));
    let writer = create("writer", mount("a", false, None)).await.unwrap();
    assert_eq!(writer.spec.volumes, [mount("a", false, None)]);
    for readonly in [false, true] {
        let refused = create("other", mount("a", readonly, Some(64))).await.unwrap_err();
        assert!(matches!(refused, StoreError::VolumeInUse { vm, .. } if vm == "writer"));
    }
    let refused = create("other", mount("none", false, None)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoVolume(name) if name == "none"));
    assert_eq!(store.list_vms().await.unwrap().len(), 1, "what was refused leaves nothing");
    assert_eq!(store.list_volumes().await.unwrap().len(), 1);
    assert!(store.begin_volume_removal(named("a")).await.is_err());

    store.set_volume(named("a"), VolumeState::Made, 128).await.unwrap();
    store.delete_vm(writer.id, 2).await.unwrap();
    create("one", mount("a", true, None)).await.unwrap();
    create("two", mount("a", true, None)).await.unwrap();
    assert!(create("three", mount("a", false, None)).await.is_err());
    create("three", mount("made", false, Some(96))).await.unwrap();
    let all = store.list_volumes().await.unwrap();
    let users: Vec<_> = all[0].users.iter().map(|user| user.vm.as_str()).collect();
    assert_eq!((all[0].mib, all[0].state, users), (128, VolumeState::Made, vec!["one", "two"]));
    assert_eq!((all[1].mib, all[1].state), (96, VolumeState::New));

    for vm in store.list_vms().await.unwrap() {
        store.delete_vm(vm.id, 3).await.unwrap();
    }
    store.begin_volume_removal(named("a")).await.unwrap();
    assert!(matches!(
        create("four", mount("a", true, Some(64))).await,
        Err(StoreError::NoVolume(_))
    ));
    store.delete_volume(named("a")).await.unwrap();
    assert!(matches!(store.begin_volume_removal(named("a")).await, Err(StoreError::NoVolume(_))));
}
