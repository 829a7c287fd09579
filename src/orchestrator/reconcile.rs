//! What a crash has left of VMs.

use crate::model::{EventKind, Vm, VmState};
use crate::orchestrator::{Error, now_ms};
use crate::store::Store;

/// Brings every row to a true state: no machine survives the daemon.
///
/// # Errors
/// The store's.
pub async fn reconcile(store: &Store) -> Result<Vec<Vm>, Error> {
    let mut vms = Vec::new();
    for vm in store.list_vms().await? {
        match vm.state {
            VmState::Stopped | VmState::Failed { .. } => vms.push(vm),
            VmState::Deleting => {
                store.delete_vm(vm.id, now_ms()).await?;
            }
            VmState::Starting | VmState::Running | VmState::Stopping => {
                let message = "the daemon ended while the VM was up".to_owned();
                let state = VmState::Stopped;
                let kind = EventKind::Stopped;
                let changed = store.set_state(vm.id, state, kind, message, now_ms()).await?;
                vms.extend(changed.map(|(vm, _)| vm));
            }
        }
    }
    Ok(vms)
}
