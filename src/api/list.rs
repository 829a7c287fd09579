//! Which VMs a list shows, in which order, and where the next page begins.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::Vm;

/// VMs on a page at the most; without `limit` all are shown, as clients of the original expect.
const LIMIT_MAX: usize = 1000;

/// Query of the list of VMs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only VMs of these statuses, separated by commas.
    pub status: Option<String>,
    /// Only VMs of this runtime.
    pub runtime: Option<String>,
    /// Only VMs that are made of this plugin.
    pub plugin: Option<String>,
    /// Only VMs whose name, address or runtime holds this text.
    pub q: Option<String>,
    /// VMs on a page, at most 1000; without it all.
    #[schemars(range(max = 1000))]
    pub limit: Option<usize>,
    /// VMs left out at the beginning.
    pub offset: Option<usize>,
    /// Where a page before has ended; from the header `Link`.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub cursor: Option<String>,
    /// What to sort by.
    #[serde(default)]
    pub sort: Sort,
    /// In which direction.
    #[serde(default)]
    pub order: Order,
}

/// What a list is sorted by; VMs that are equal in it are in the order of their creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// When they were created.
    #[default]
    CreatedAt,
    /// When they last changed.
    UpdatedAt,
    /// Their name.
    Name,
    /// Their status.
    Status,
    /// Their runtime.
    Runtime,
}

/// A direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Upwards.
    #[default]
    Asc,
    /// Downwards.
    Desc,
}

/// What a list shows.
#[derive(Debug)]
pub struct Page {
    /// The VMs.
    pub vms: Vec<Vm>,
    /// So many would be shown on one page.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Why a list shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPage {
    /// More on a page than allowed.
    #[error("limit: at most {LIMIT_MAX}")]
    TooLong,
    /// The cursor names no place in this list.
    #[error("cursor: it was not given out here")]
    Unknown,
}

/// A place in a sorted list: the key and the number of the VM before it.
type Place = (String, i64);

fn place(vm: &Vm, sort: Sort) -> Place {
    let key = match sort {
        // Fixed width: texts sort as the numbers do.
        Sort::CreatedAt => format!("{:020}", vm.created_at_ms),
        Sort::UpdatedAt => format!("{:020}", vm.updated_at_ms),
        Sort::Name => vm.name.to_string(),
        Sort::Status => vm.state.as_str().to_owned(),
        Sort::Runtime => vm.runtime.clone(),
    };
    (key, vm.id.0)
}

fn cursor(place: &Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}\n{}", place.1, place.0))
}

fn parse(cursor: &str) -> Option<Place> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (id, key) = text.split_once('\n')?;
    Some((key.to_owned(), id.parse().ok()?))
}

impl ListQuery {
    /// Chooses from all VMs.
    ///
    /// # Errors
    /// What is wrong with the query.
    pub fn choose(&self, mut vms: Vec<Vm>) -> Result<Page, NoPage> {
        if self.limit.is_some_and(|limit| LIMIT_MAX < limit) {
            return Err(NoPage::TooLong);
        }
        let after = self.cursor.as_deref().map(|text| parse(text).ok_or(NoPage::Unknown));
        let after = after.transpose()?;
        vms.retain(|vm| self.wants(vm));
        let total = vms.len();
        vms.sort_by_cached_key(|vm| place(vm, self.sort));
        if self.order == Order::Desc {
            vms.reverse();
        }
        if let Some(after) = after {
            let is_after = |vm: &Vm| match self.order {
                Order::Asc => after < place(vm, self.sort),
                Order::Desc => place(vm, self.sort) < after,
            };
            vms.retain(is_after);
        }
        let skipped = self.offset.unwrap_or(0).min(vms.len());
        vms.drain(..skipped);
        let limit = self.limit.unwrap_or(usize::MAX);
        let is_more = limit < vms.len();
        vms.truncate(limit);
        let next = vms.last().filter(|_| is_more).map(|vm| cursor(&place(vm, self.sort)));
        Ok(Page { vms, total, next })
    }

    fn wants(&self, vm: &Vm) -> bool {
        let same = |text: &str, wanted: &str| text.eq_ignore_ascii_case(wanted);
        let status = |wanted: &String| {
            wanted.split(',').any(|wanted| same(vm.state.as_str(), wanted.trim()))
        };
        let holds = |wanted: &String| {
            let wanted = wanted.to_lowercase();
            let texts = [vm.name.to_string(), vm.ip.to_string(), vm.runtime.to_lowercase()];
            texts.iter().any(|text| text.contains(&wanted))
        };
        self.status.as_ref().is_none_or(status)
            && self.runtime.as_ref().is_none_or(|wanted| same(&vm.runtime, wanted))
            && self.plugin.as_ref().is_none_or(|wanted| {
                vm.plugin.as_ref().is_some_and(|plugin| same(plugin.name.as_str(), wanted))
            })
            && self.q.as_ref().is_none_or(holds)
    }

    /// Path and query of the page that begins at `cursor`.
    pub fn path_of(&self, path: &str, cursor: &str) -> String {
        let mut text = format!("{path}?cursor={cursor}");
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
                text.push_str(&format!("&{name}={value}"));
            }
        };
        add("limit", self.limit.map(|limit| limit.to_string()).as_deref());
        add("status", self.status.as_deref());
        add("runtime", self.runtime.as_deref());
        add("plugin", self.plugin.as_deref());
        add("q", self.q.as_deref());
        add(
            "sort",
            Some(match self.sort {
                Sort::CreatedAt => "created_at",
                Sort::UpdatedAt => "updated_at",
                Sort::Name => "name",
                Sort::Status => "status",
                Sort::Runtime => "runtime",
            }),
        );
        add("order", (self.order == Order::Desc).then_some("desc"));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crate::model::{BootProtocol, Mac, VmId, VmName, VmSpec, VmState};

    use super::*;

    fn vm(id: u8, name: &str, state: VmState) -> Vm {
        Vm {
            id: VmId(id.into()),
            name: VmName::try_from(name).unwrap(),
            spec: VmSpec {
                vcpus: 1,
                memory_mib: 64,
                kernel: None,
                initramfs: None,
                kernel_cmdline: String::new(),
                env: std::collections::BTreeMap::new(),
                console: true,
                disks: Vec::new(),
                boot_protocol: BootProtocol::Auto,
                image: None,
                volumes: Vec::new(),
                boot_from: crate::model::BootFrom::Initramfs,
                network: crate::model::NetworkMode::Bridged,
                cloud_init: None,
                workload: None,
            },
            runtime: "default".to_owned(),
            plugin: None,
            labels: std::collections::BTreeMap::new(),
            state,
            ip: Ipv4Addr::new(10, 0, 0, id),
            mac: Mac([0; 6]),
            cid: 3,
            created_at_ms: 7,
            updated_at_ms: 100 - i64::from(id),
            expiry: None,
            timeline: Vec::new(),
            boot_exits: 0,
            workload: None,
        }
    }

    fn fleet() -> Vec<Vm> {
        let names = ["c", "a", "e", "b", "d"];
        let state = |id: u8| if id.is_multiple_of(2) { VmState::Running } else { VmState::Stopped };
        (1..).zip(names).map(|(id, name)| vm(id, name, state(id))).collect()
    }

    fn names(query: &ListQuery) -> String {
        query.choose(fleet()).unwrap().vms.iter().map(|vm| vm.name.to_string()).collect()
    }

    #[test]
    fn lists_are_filtered_and_sorted() {
        let query = ListQuery::default();
        assert_eq!(names(&query), "caebd");
        assert_eq!(names(&ListQuery { sort: Sort::Name, ..query.clone() }), "abcde");
        let down = ListQuery { sort: Sort::UpdatedAt, order: Order::Desc, ..query.clone() };
        assert_eq!(names(&down), "caebd");
        assert_eq!(names(&ListQuery { status: Some("RUNNING, x".into()), ..query.clone() }), "ab");
        assert_eq!(names(&ListQuery { q: Some("0.0.3".into()), ..query.clone() }), "e");
        assert_eq!(names(&ListQuery { runtime: Some("none".into()), ..query.clone() }), "");
        assert_eq!(names(&ListQuery { limit: Some(0), ..query.clone() }), "");
        assert_eq!(names(&ListQuery { offset: Some(3), ..query.clone() }), "bd");
        assert!(ListQuery { limit: Some(1001), ..query.clone() }.choose(fleet()).is_err());
        assert!(ListQuery { cursor: Some("x".into()), ..query }.choose(fleet()).is_err());
    }

    #[test]
    fn pages_miss_nothing_and_repeat_nothing() {
        for (sort, order) in [
            (Sort::CreatedAt, Order::Asc),
            (Sort::CreatedAt, Order::Desc),
            (Sort::Name, Order::Desc),
            (Sort::Status, Order::Asc),
        ] {
            let whole = names(&ListQuery { sort, order, ..ListQuery::default() });
            let mut query = ListQuery { sort, order, limit: Some(2), ..ListQuery::default() };
            let mut seen = String::new();
            loop {
                let page = query.choose(fleet()).unwrap();
                assert_eq!(page.total, 5);
                seen.extend(page.vms.iter().map(|vm| vm.name.to_string()));
                query.cursor = page.next;
                if query.cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, whole, "{sort:?} {order:?}");
        }
    }
}
