//! Tables `vms` and `leases`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::model::{
    BootFrom, BootProtocol, CloudInit, Disk, Event, EventKind, Expiry, Mac, NetworkMode, NewVm,
    OnExpiry, PluginName, PluginRef, PluginVersion, Vm, VmId, VmName, VmSpec, VmState, Workload,
};
use crate::store::{Store, StoreError, events, exposures, images, plugins, sqlite, volumes};

const COLUMNS: &str = "v.id, v.name, v.runtime, v.state, v.reason, v.vcpus, v.memory_mib, \
    v.kernel, v.initramfs, v.kernel_cmdline, v.env, v.console, v.created_at_ms, v.updated_at_ms, \
    l.address, v.disks, v.boot_protocol, v.workload, \
    v.plugin, v.plugin_version, v.labels, v.image, v.boot_from, v.cloud_init, v.expires_at_ms, \
    v.on_expiry, v.network";
/// CIDs 0 to 2 are taken (virtio 1.3, 5.10.4).
const CID_FIRST: i64 = 3;

fn select() -> String {
    let volumes = volumes::MOUNTS_COLUMN;
    format!("SELECT {COLUMNS}, {volumes} FROM vms v JOIN leases l ON l.vm_id = v.id")
}

impl Store {
    /// Stores a new VM with an address and its first event, as one change. `choose` picks a free
    /// address given those in use.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::NoAddress`], [`StoreError::NoVolume`],
    /// [`StoreError::VolumeInUse`].
    pub async fn create_vm(
        &self,
        new: NewVm,
        state: VmState,
        now_ms: i64,
        choose: impl FnOnce(&BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> + Send + 'static,
    ) -> Result<(Vm, Event), StoreError> {
        self.transact(move |tx| {
            if let Some(plugin) = &new.plugin {
                plugins::check_usable(tx, plugin)?;
            }
            insert(tx, &new, &state, now_ms)?;
            let id = tx.last_insert_rowid();
            let address = choose(&leased(tx)?).ok_or(StoreError::NoAddress)?;
            tx.execute("INSERT INTO leases VALUES (?1, ?2)", params![u32::from(address), id])
                .map_err(sqlite("lease an address"))?;
            for exposure in &new.exposures {
                exposures::insert(tx, id, *exposure)?;
            }
            volumes::attach(tx, id, &new.spec.volumes, now_ms)?;
            let vm = find(tx, "v.id = ?1", &[&id])?.ok_or(StoreError::Closed)?;
            let event = events::append(tx, &vm, EventKind::Created, now_ms, "vm record created")?;
            Ok((vm, event))
        })
        .await
    }

    /// Changes the state and tells it, as one change. `None` if the VM is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_state(
        &self,
        id: VmId,
        state: VmState,
        kind: EventKind,
        message: String,
        now_ms: i64,
    ) -> Result<Option<(Vm, Event)>, StoreError> {
        self.transact(move |tx| {
            let reason = match &state {
                VmState::Failed { reason } => reason.as_str(),
                _ => "",
            };
            tx.execute(
                "UPDATE vms SET state = ?1, reason = ?2, updated_at_ms = ?3 WHERE id = ?4",
                params![state.as_str(), reason, now_ms, id.0],
            )
            .map_err(sqlite("store a state"))?;
            let Some(vm) = find(tx, "v.id = ?1", &[&id.0])? else { return Ok(None) };
            let event = events::append(tx, &vm, kind, now_ms, &message)?;
            Ok(Some((vm, event)))
        })
        .await
    }

    /// Changes when a VM's time is over; `None` if the VM is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_expiry(
        &self,
        id: VmId,
        expiry: Option<Expiry>,
        now_ms: i64,
    ) -> Result<Option<Vm>, StoreError> {
        self.transact(move |tx| {
            let (at_ms, then) = expiry_columns(expiry);
            tx.execute(
                "UPDATE vms SET expires_at_ms = ?1, on_expiry = ?2, updated_at_ms = ?3 \
                 WHERE id = ?4",
                params![at_ms, then, now_ms, id.0],
            )
            .map_err(sqlite("store the end of a VM's time"))?;
            find(tx, "v.id = ?1", &[&id.0])
        })
        .await
    }

    /// Removes the VM and its lease and tells it, as one change.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_vm(&self, id: VmId, now_ms: i64) -> Result<Option<Event>, StoreError> {
        self.transact(move |tx| {
            let Some(vm) = find(tx, "v.id = ?1", &[&id.0])? else { return Ok(None) };
            tx.execute("DELETE FROM vms WHERE id = ?1", [id.0]).map_err(sqlite("delete a VM"))?;
            events::append(tx, &vm, EventKind::Deleted, now_ms, "vm deleted").map(Some)
        })
        .await
    }

    /// All VMs by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_vms(&self) -> Result<Vec<Vm>, StoreError> {
        self.transact(|tx| {
            let step = || sqlite("list VMs");
            let mut statement =
                tx.prepare(&format!("{} ORDER BY v.id", select())).map_err(step())?;
            let rows = statement.query_map([], |row| Ok(read(row))).map_err(step())?;
            rows.map(|row| row.map_err(step())?).collect()
        })
        .await
    }
}

/// A disk as a row has it: its path, whether it is read-only, and, since there are such, whether the
/// VM has a copy of its own.
#[derive(Serialize, Deserialize)]
struct DiskText(String, bool, #[serde(default)] bool);

fn insert(tx: &Transaction<'_>, new: &NewVm, state: &VmState, now: i64) -> Result<(), StoreError> {
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or(String::new(), |path| path.to_string_lossy().into_owned())
    };
    let spec = &new.spec;
    let env = serde_json::to_string(&spec.env).unwrap_or_default();
    let disk = |disk: &Disk| {
        DiskText(disk.path.to_string_lossy().into_owned(), disk.readonly, disk.private)
    };
    let disks: Vec<DiskText> = spec.disks.iter().map(disk).collect();
    let disks = serde_json::to_string(&disks).unwrap_or_default();
    let memory = i64::try_from(spec.memory_mib).unwrap_or(i64::MAX);
    let (expires_at_ms, on_expiry) = expiry_columns(new.expiry);
    let inserted = tx.execute(
        "INSERT INTO vms (name, runtime, state, vcpus, memory_mib, kernel, initramfs, \
         kernel_cmdline, env, console, disks, boot_protocol, workload, plugin, \
         plugin_version, labels, image, boot_from, cloud_init, created_at_ms, updated_at_ms, \
         expires_at_ms, on_expiry, network) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
         ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?20, ?21, ?22, ?23)",
        params![
            new.name.as_str(),
            new.runtime,
            state.as_str(),
            spec.vcpus,
            memory,
            path(&spec.kernel),
            path(&spec.initramfs),
            spec.kernel_cmdline,
            env,
            spec.console,
            disks,
            spec.boot_protocol.as_str(),
            workload_text(spec.workload.as_ref()),
            new.plugin.as_ref().map_or("", |plugin| plugin.name.as_str()),
            new.plugin.as_ref().map_or("", |plugin| plugin.version.as_str()),
            serde_json::to_string(&new.labels).unwrap_or_default(),
            images::to_text(spec.image.as_ref()),
            spec.boot_from.as_str(),
            seed_text(spec.cloud_init.as_ref()),
            now,
            expires_at_ms,
            on_expiry,
            spec.network.as_str()
        ],
    );
    match inserted {
        Ok(_) => Ok(()),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Err(StoreError::NameTaken)
        }
        Err(error) => Err(sqlite("store a VM")(error)),
    }
}

fn leased(tx: &Transaction<'_>) -> Result<BTreeSet<Ipv4Addr>, StoreError> {
    let step = || sqlite("read leases");
    let mut statement = tx.prepare("SELECT address FROM leases").map_err(step())?;
    let rows = statement.query_map([], |row| row.get::<_, u32>(0)).map_err(step())?;
    rows.map(|row| row.map(Ipv4Addr::from).map_err(step())).collect()
}

/// The VM that meets a condition.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    tx: &Transaction<'_>,
    condition: &str,
    params: &[&dyn rusqlite::ToSql],
) -> Result<Option<Vm>, StoreError> {
    tx.query_row(&format!("{} WHERE {condition}", select()), params, |row| Ok(read(row)))
        .optional()
        .map_err(sqlite("find a VM"))?
        .transpose()
}

fn read(row: &Row<'_>) -> Result<Vm, StoreError> {
    let step = || sqlite("read a VM");
    let text = |index: usize| row.get::<_, String>(index).map_err(step());
    let number = |index: usize| row.get::<_, i64>(index).map_err(step());
    let corrupt = |what: &str| StoreError::Corrupt(what.to_owned());
    let path = |text: String| (!text.is_empty()).then(|| text.into());
    let env: BTreeMap<String, String> =
        serde_json::from_str(&text(10)?).map_err(|_| corrupt("env"))?;
    let disks: Vec<DiskText> = serde_json::from_str(&text(15)?).map_err(|_| corrupt("disks"))?;
    let disk = |DiskText(path, readonly, private)| Disk { path: path.into(), readonly, private };
    let reason = text(4)?;
    let id = number(0)?;
    let ip = Ipv4Addr::from(u32::try_from(number(14)?).map_err(|_| corrupt("address"))?);
    Ok(Vm {
        id: VmId(id),
        name: VmName::try_from(text(1)?.as_str()).map_err(|_| corrupt("name"))?,
        spec: VmSpec {
            vcpus: u32::try_from(number(5)?).map_err(|_| corrupt("vcpus"))?,
            memory_mib: u64::try_from(number(6)?).map_err(|_| corrupt("memory_mib"))?,
            kernel: path(text(7)?),
            initramfs: path(text(8)?),
            kernel_cmdline: text(9)?,
            env,
            console: number(11)? != 0,
            disks: disks.into_iter().map(disk).collect(),
            boot_protocol: BootProtocol::from_word(&text(16)?)
                .ok_or_else(|| corrupt("boot_protocol"))?,
            workload: workload_of(&text(17)?)?,
            image: images::from_text(&text(21)?)?,
            volumes: volumes::mounts_of(&text(27)?)?,
            boot_from: BootFrom::from_word(&text(22)?).ok_or_else(|| corrupt("boot_from"))?,
            cloud_init: seed_of(&text(23)?)?,
            network: NetworkMode::from_word(&text(26)?).ok_or_else(|| corrupt("network"))?,
        },
        runtime: text(2)?,
        plugin: plugin_of(&text(18)?, &text(19)?)?,
        labels: serde_json::from_str(&text(20)?).map_err(|_| corrupt("labels"))?,
        state: match text(3)?.as_str() {
            "starting" => VmState::Starting,
            "running" => VmState::Running,
            "stopping" => VmState::Stopping,
            "stopped" => VmState::Stopped,
            "failed" => VmState::Failed { reason },
            "deleting" => VmState::Deleting,
            _ => return Err(corrupt("state")),
        },
        ip,
        mac: mac_of(ip),
        cid: u32::try_from(id + CID_FIRST - 1).map_err(|_| corrupt("id"))?,
        created_at_ms: number(12)?,
        updated_at_ms: number(13)?,
        expiry: expiry_of(number(24)?, &text(25)?)?,
        timeline: Vec::new(),
        boot_exits: 0,
        workload: None,
    })
}

/// User data, meta data and network configuration.
type SeedText = (Option<String>, Option<String>, Option<String>);

fn seed_text(seed: Option<&CloudInit>) -> String {
    let Some(CloudInit { user_data, meta_data, network_config }) = seed else {
        return String::new();
    };
    serde_json::to_string(&(user_data, meta_data, network_config)).unwrap_or_default()
}

fn seed_of(text: &str) -> Result<Option<CloudInit>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (user_data, meta_data, network_config): SeedText =
        serde_json::from_str(text).map_err(|_| StoreError::Corrupt("cloud_init".to_owned()))?;
    Ok(Some(CloudInit { user_data, meta_data, network_config }))
}

fn expiry_columns(expiry: Option<Expiry>) -> (i64, &'static str) {
    expiry
        .map_or((0, OnExpiry::default().as_str()), |Expiry { at_ms, then }| (at_ms, then.as_str()))
}

fn expiry_of(at_ms: i64, then: &str) -> Result<Option<Expiry>, StoreError> {
    if at_ms == 0 {
        return Ok(None);
    }
    let then = OnExpiry::from_word(then);
    let then = then.ok_or_else(|| StoreError::Corrupt("on_expiry".to_owned()))?;
    Ok(Some(Expiry { at_ms, then }))
}

fn workload_text(workload: Option<&Workload>) -> String {
    let text = workload.map(|workload| serde_json::to_string(workload.plain()));
    text.and_then(Result::ok).unwrap_or_default()
}

fn plugin_of(name: &str, version: &str) -> Result<Option<PluginRef>, StoreError> {
    if name.is_empty() {
        return Ok(None);
    }
    let corrupt = |error: crate::model::InvalidWord| StoreError::Corrupt(error.to_string());
    let name = PluginName::try_from(name).map_err(corrupt)?;
    let version = PluginVersion::try_from(version).map_err(corrupt)?;
    Ok(Some(PluginRef { name, version }))
}

fn workload_of(text: &str) -> Result<Option<Workload>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain: volant_protocol::Workload =
        serde_json::from_str(text).map_err(|_| StoreError::Corrupt("workload".to_owned()))?;
    Workload::try_from(plain).map(Some).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Locally administered, and unique since the address is: 02:76 ("v") and the four octets.
pub fn mac_of(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    Mac([0x02, 0x76, a, b, c, d])
}
