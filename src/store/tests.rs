use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::*;
use crate::model::{BootProtocol, Disk, EventKind, NewVm, VmName, VmSpec, VmState, Workload};

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
                Disk { path: "/disks/a".into(), readonly: false },
                Disk { path: "/disks/b".into(), readonly: true },
            ],
            boot_protocol: BootProtocol::Pvh,
            workload: Some(workload()),
        },
        runtime: "default".to_owned(),
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
    assert_eq!(store.list_vms().await.unwrap(), [made]);
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
