//! Shapes of volumes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume: a named ext4 disk that outlives the VMs that it is attached to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// Its size in MiB.
    pub size_mb: u64,
    /// Bytes that it takes on the host.
    pub used_bytes: u64,
    /// The VMs that it is attached to, whether they run or not.
    pub attached: Vec<VolumeUserView>,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// A VM that a volume is attached to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VolumeUserView {
    /// The VM.
    pub vm: String,
    /// The folder in the guest.
    pub path: String,
    /// The guest cannot write.
    pub readonly: bool,
}

/// A volume of a VM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmVolume {
    /// The volume. It must be there.
    pub name: String,
    /// Absolute path of the folder in the guest.
    pub path: String,
    /// The guest cannot write: many VMs may have it so, but only one where it may.
    #[serde(default)]
    pub readonly: bool,
}

/// `POST /api/v1/volumes`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 127 letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
    pub name: String,
    /// Size in MiB, at least 64. What is not written takes nothing on the host.
    pub size_mb: u64,
}

/// `POST /api/v1/volumes/{volume}/grow`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrowVolume {
    /// The new size in MiB; not less than it has.
    pub size_mb: u64,
}
