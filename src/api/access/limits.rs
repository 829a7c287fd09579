//! Tokens that are limited to VMs with certain labels. Whatever is not of one such VM is closed to them,
//! so that a route that is new is closed until it is thought of here.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use crate::api::access::Principal;
use crate::api::error::Refusal;
use crate::api::operations::Operation;
use crate::model::VmName;
use crate::orchestrator::Orchestrator;
use crate::wire::CreateVm;

/// What a limited token may call beside what is asked of one VM: their handlers know of its limits.
const OF_ALL: [&str; 2] = ["listVMs", "createVM"];

fn closed(text: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "outside_labels", text)
}

/// Whether the token's labels let a request through.
///
/// # Errors
/// They do not.
pub fn check(
    orchestrator: &Orchestrator,
    principal: &Principal,
    operation: &Operation,
    path: &str,
) -> Result<(), Refusal> {
    if principal.labels.is_empty() || OF_ALL.contains(&operation.id) {
        return Ok(());
    }
    let Some(name) = vm_of(operation.path, path) else {
        return Err(closed("this token opens VMs with its labels only, and this is no such VM"));
    };
    match orchestrator.get(&name) {
        Ok(vm) if !has(&vm.labels, &principal.labels) => {
            Err(closed("the VM has not the labels that this token is limited to"))
        }
        // That there is none is told as always.
        _ => Ok(()),
    }
}

/// Whether `labels` has all of `wanted`.
pub fn has(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Gives a VM that a limited token makes its labels.
///
/// # Errors
/// It is to have others, or something that is not of this VM alone.
pub fn create(principal: &Principal, body: &mut CreateVm) -> Result<(), Refusal> {
    if principal.labels.is_empty() {
        return Ok(());
    }
    for (key, value) in principal.labels.iter() {
        let given = body.labels.entry(key.clone()).or_insert_with(|| value.clone());
        if given != value {
            return Err(closed("the VM's labels are not those that this token is limited to"));
        }
    }
    if !body.volumes.is_empty() || !body.expose.is_empty() {
        return Err(closed(
            "a token that is limited to labels gives VMs neither volumes nor ports",
        ));
    }
    Ok(())
}

/// The VM that a request's path names, where the route has one. A name that is written in another way is
/// none.
fn vm_of(route: &str, path: &str) -> Option<VmName> {
    let (mut route, mut path) = (route.split('/').skip(3), path.split('/').skip(3));
    let is_vm = route.next() == Some("vms") && path.next() == Some("vms");
    let is_named = route.next().is_some_and(|segment| segment.starts_with('{'));
    let name = path.next().filter(|_| is_vm && is_named)?;
    VmName::try_from(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_one_vm_are_told_from_others() {
        let name = |route: &str, path: &str| Some(vm_of(route, path)?.to_string());
        let one = Some("one".to_owned());
        assert_eq!(name("/api/v1/vms/{name}", "/api/v1/vms/one"), one);
        assert_eq!(name("/api/v1/vms/{name}/exec", "/ws/v1/vms/one/exec"), one);
        assert_eq!(
            name("/api/v1/vms/{vm}/actions/{plugin}/{action}", "/api/v1/vms/one/actions/a/b"),
            one
        );
        assert_eq!(name("/api/v1/vms/{name}", "/api/v1/vms/on%65"), None);
        assert_eq!(name("/api/v1/plugins/{plugin}", "/api/v1/plugins/one"), None);
        assert_eq!(name("/api/v1/events/vms", "/api/v1/events/vms"), None);
        assert_eq!(name("/api/v1/vms", "/api/v1/vms"), None);
        assert_eq!(name("/mcp", "/mcp"), None);
    }

    #[test]
    fn all_labels_are_needed() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert!(has(&map(&[("team", "a"), ("tier", "1")]), &map(&[("team", "a")])));
        assert!(!has(&map(&[("team", "b")]), &map(&[("team", "a")])));
        assert!(!has(&map(&[("team", "a")]), &map(&[("team", "a"), ("tier", "1")])));
    }
}
