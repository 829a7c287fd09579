//! Volumes: named disks with a file system, which outlive the VMs that they are attached to.

use std::fmt;

use crate::model::{InvalidSpec, VmName};

/// A volume's name: 1 to 127 letters, digits, `.`, `_`, `-`, beginning with a letter or digit. It
/// appears in URLs and is a file's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// Room for a VM's name, a `-`, and the name that a manifest gives.
    pub const LEN_MAX: usize = 127;

    /// The volume that a manifest calls `name`, of this VM.
    ///
    /// # Errors
    /// `name` breaks the rules.
    pub fn of_vm(vm: &VmName, name: &str) -> Result<VolumeName, InvalidSpec> {
        VolumeName::try_from(format!("{vm}-{name}").as_str())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for VolumeName {
    type Error = InvalidSpec;

    fn try_from(text: &str) -> Result<VolumeName, InvalidSpec> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = (1..=VolumeName::LEN_MAX).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if good {
            return Ok(VolumeName(text.to_owned()));
        }
        let reason = "a volume's name is 1 to 127 letters, digits, '.', '_', '-', beginning with a \
                      letter or digit";
        Err(InvalidSpec { field: "volume", reason: reason.to_owned() })
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Unique name.
    pub name: VolumeName,
    /// Its size, [`Volume::MIB_MIN`] to [`Volume::MIB_MAX`].
    pub mib: u64,
    /// Where it is in its life.
    pub state: VolumeState,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// The VMs that it is attached to.
    pub users: Vec<VolumeUser>,
}

impl Volume {
    /// Room for a journal and something beside it.
    pub const MIB_MIN: u64 = 64;
    /// 8 TiB.
    pub const MIB_MAX: u64 = 8 << 20;
}

/// Whether there is a file of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// Not yet: it is made when it is needed first. A file of its name is none of it.
    New,
    /// There is.
    Made,
    /// It is being removed.
    Deleting,
}

/// A VM that a volume is attached to, whether it runs or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUser {
    /// The VM.
    pub vm: VmName,
    /// Where it is in the guest.
    pub path: String,
    /// The guest cannot write.
    pub readonly: bool,
}

/// A volume of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Which one.
    pub volume: VolumeName,
    /// Absolute path of the folder in the guest.
    pub path: String,
    /// The guest cannot write.
    pub readonly: bool,
    /// Make it, of so many MiB, when the VM is created and there is none; without a size there must
    /// be one.
    pub make_mib: Option<u64>,
}

impl VolumeMount {
    /// Bytes of a path.
    const PATH_LEN_MAX: usize = 1024;

    /// Checks all that can be told without the others.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(mounts: &[VolumeMount]) -> Result<(), InvalidSpec> {
        let refuse = |reason: String| Err(InvalidSpec { field: "volumes", reason });
        for (index, mount) in mounts.iter().enumerate() {
            let VolumeMount { volume, path, make_mib, .. } = mount;
            let normal = path.len() <= VolumeMount::PATH_LEN_MAX
                && 1 < path.len()
                && path.starts_with('/')
                && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
                && !path.chars().any(char::is_control);
            if !normal {
                return refuse(format!(
                    "{path:?} is no absolute path below / without '.' and '..'"
                ));
            }
            let taken = ["/dev", "/proc", "/sys", "/run"];
            if taken.iter().any(|taken| path == taken || path.starts_with(&format!("{taken}/"))) {
                return refuse(format!("{path:?} is the system's"));
            }
            let (min, max) = (Volume::MIB_MIN, Volume::MIB_MAX);
            if make_mib.is_some_and(|mib| !(min..=max).contains(&mib)) {
                return refuse(format!("{volume}: {min} to {max} MiB"));
            }
            let earlier = &mounts[..index];
            if earlier.iter().any(|other| other.volume == *volume || other.path == *path) {
                return refuse(format!("{volume} at {path}: a volume or a path is there twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        for good in ["a", "web-data", "9_x.y", &"a".repeat(127)] {
            assert!(VolumeName::try_from(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", "a\0", &"a".repeat(128)] {
            assert!(VolumeName::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn places_in_the_guest_are_folders_of_its_own() {
        let mount = |volume: &str, path: &str| VolumeMount {
            volume: VolumeName::try_from(volume).unwrap(),
            path: path.to_owned(),
            readonly: false,
            make_mib: None,
        };
        VolumeMount::check(&[mount("a", "/data"), mount("b", "/data/inner")]).unwrap();
        let refused =
            ["", "/", "data", "/a/../b", "/a//b", "/a/", "/./a", "/proc", "/dev/x", "/a\n"];
        for path in refused {
            assert!(VolumeMount::check(&[mount("a", path)]).is_err(), "{path:?}");
        }
        assert!(VolumeMount::check(&[mount("a", "/x"), mount("a", "/y")]).is_err());
        assert!(VolumeMount::check(&[mount("a", "/x"), mount("b", "/x")]).is_err());
        let small = VolumeMount { make_mib: Some(1), ..mount("a", "/x") };
        assert!(VolumeMount::check(&[small]).is_err());
    }
}
