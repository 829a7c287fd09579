use std::net::Ipv4Addr;

use super::*;
use crate::model::{EventKind, VmSpec};

#[tokio::test]
async fn after_a_crash_every_row_tells_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db")).unwrap();
    let states = [
        VmState::Starting,
        VmState::Running,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Failed { reason: "why".to_owned() },
        VmState::Deleting,
    ];
    for (index, state) in states.into_iter().enumerate() {
        let spec = VmSpec {
            vcpus: 1,
            memory_mib: 64,
            kernel: None,
            initramfs: None,
            kernel_cmdline: String::new(),
            env: BTreeMap::new(),
            console: false,
            disks: Vec::new(),
            boot_protocol: crate::model::BootProtocol::Auto,
            workload: None,
            image: None,
            volumes: Vec::new(),
            boot_from: crate::model::BootFrom::Initramfs,
            network: crate::model::NetworkMode::Bridged,
            cloud_init: None,
        };
        let name = VmName::try_from(format!("vm-{index}").as_str()).unwrap();
        let new = NewVm {
            name,
            spec,
            runtime: "default".to_owned(),
            plugin: None,
            labels: BTreeMap::new(),
            image: None,
            media: Vec::new(),
            expiry: None,
            exposures: Vec::new(),
        };
        let choose = move |_: &_| Some(Ipv4Addr::new(10, 0, 0, 2 + u8::try_from(index).unwrap()));
        let (vm, _) = store.create_vm(new, VmState::Stopped, 1, choose).await.unwrap();
        store.set_state(vm.id, state, EventKind::Starting, String::new(), 2).await.unwrap();
    }
    let vms = reconcile(&store).await.unwrap();
    let words: Vec<_> = vms.iter().map(|vm| vm.state.as_str()).collect();
    assert_eq!(words, ["stopped", "stopped", "stopped", "stopped", "failed"]);
    let again: Vec<_> = reconcile(&store).await.unwrap();
    assert_eq!(again, vms, "reconciling twice changes nothing");
}
