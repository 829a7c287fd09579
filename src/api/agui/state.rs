//! The state document: all VMs as REST shows them, by their number, and the revision it is of.

use serde_json::{Map, Value, json};

use crate::api::view;
use crate::model::VmName;
use crate::orchestrator::Orchestrator;

/// The document, and what of it a client has.
#[derive(Debug)]
pub struct State {
    vms: Map<String, Value>,
    rev: i64,
}

fn vms(orchestrator: &Orchestrator, only: Option<&VmName>) -> Map<String, Value> {
    let vms = orchestrator.list();
    let wanted = vms.iter().filter(|vm| only.is_none_or(|only| *only == vm.name));
    wanted.map(|vm| (vm.id.to_string(), json!(view::vm(vm)))).collect()
}

impl State {
    /// As it is now; `rev` is the last event that it knows of.
    pub fn now(orchestrator: &Orchestrator, only: Option<&VmName>, rev: i64) -> State {
        State { vms: vms(orchestrator, only), rev }
    }

    /// All of it.
    pub fn document(&self) -> Value {
        json!({
            "rev": self.rev,
            "host": { "version": env!("CARGO_PKG_VERSION") },
            "vms": self.vms,
        })
    }

    /// Brings it up to date, and returns the JSON Patch that does the same to the client's; `None`
    /// if nothing has changed.
    pub fn advance(
        &mut self,
        orchestrator: &Orchestrator,
        only: Option<&VmName>,
        rev: Option<i64>,
    ) -> Option<Value> {
        let new = vms(orchestrator, only);
        let mut patch = Vec::new();
        for id in self.vms.keys().filter(|id| !new.contains_key(*id)) {
            patch.push(json!({ "op": "remove", "path": format!("/vms/{id}") }));
        }
        for (id, vm) in &new {
            let op = match self.vms.get(id) {
                None => "add",
                Some(old) if old != vm => "replace",
                Some(_) => continue,
            };
            patch.push(json!({ "op": op, "path": format!("/vms/{id}"), "value": vm }));
        }
        if let Some(rev) = rev.filter(|rev| self.rev < *rev) {
            patch.push(json!({ "op": "replace", "path": "/rev", "value": rev }));
            self.rev = rev;
        }
        self.vms = new;
        (!patch.is_empty()).then_some(Value::Array(patch))
    }
}
