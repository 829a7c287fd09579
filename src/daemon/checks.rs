//! What the host must have, each with one sentence that says what to do.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Where the facts are read: a struct, so that tests can point it elsewhere.
#[derive(Debug)]
pub struct Host {
    /// `/dev/kvm`.
    pub kvm: PathBuf,
    /// `/sys/module/kvm_pvm`.
    pub pvm: PathBuf,
    /// `/proc/cpuinfo`.
    pub cpuinfo: PathBuf,
    /// `/dev/net/tun`.
    pub tun: PathBuf,
}

impl Host {
    /// This host.
    pub fn real() -> Host {
        Host {
            kvm: "/dev/kvm".into(),
            pvm: "/sys/module/kvm_pvm".into(),
            cpuinfo: "/proc/cpuinfo".into(),
            tun: "/dev/net/tun".into(),
        }
    }
}

/// Checks in order, cheap ones first; the first that fails is told.
///
/// # Errors
/// One sentence.
pub fn run(host: &Host, config: &Config) -> Result<()> {
    if !host.kvm.exists() {
        bail!(
            "there is no /dev/kvm: load kvm_intel or kvm_amd, and enable virtualization in the firmware"
        );
    }
    if fs::OpenOptions::new().read(true).write(true).open(&host.kvm).is_err() {
        bail!("/dev/kvm may not be opened: run as root or as a member of the group kvm");
    }
    let flags = fs::read_to_string(&host.cpuinfo).unwrap_or_default();
    let hardware = flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx");
    if host.pvm.exists() && !hardware {
        bail!(
            "the KVM of this host is PVM, which cannot run Linux guests: use a host with SVM or VMX, or the devvm"
        );
    }
    if !host.tun.exists() {
        bail!("there is no /dev/net/tun: load the module tun");
    }
    if !config.kernel.is_file() {
        bail!(
            "there is no guest kernel at {}: build one with kernel/build.sh, or name it with --kernel",
            config.kernel.display()
        );
    }
    if !config.agent.is_file() {
        bail!(
            "there is no guest agent at {}: build volary, or name it with --agent",
            config.agent.display()
        );
    }
    Ok(())
}

/// Descriptors that a full house of clients and a hundred guests need.
const DESCRIPTORS_WANTED: u64 = 16 * 1024;

/// Takes all the descriptors that the host lets this process have: by default it would run out of
/// them long before it is out of connections that it may hold.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on descriptors stays as it is");
    }
    if limit.maximum.is_some_and(|most| most < DESCRIPTORS_WANTED) {
        tracing::warn!(most = limit.maximum, "few descriptors: set LimitNOFILE higher");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::ServeFlags;

    #[test]
    fn each_lack_has_its_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let host =
            Host { kvm: path("kvm"), pvm: path("pvm"), cpuinfo: path("cpuinfo"), tun: path("tun") };
        let flags = ServeFlags {
            kernel: Some(path("vmlinux")),
            agent: Some(path("volary")),
            ..ServeFlags::default()
        };
        let config = crate::config::resolve(&flags, Path::new("/x/volantd")).unwrap();
        let sentence = || run(&host, &config).unwrap_err().to_string();
        assert!(sentence().contains("no /dev/kvm"));
        fs::create_dir(path("kvm")).unwrap();
        assert!(sentence().contains("may not be opened"), "a folder cannot be opened for writing");
        fs::remove_dir(path("kvm")).unwrap();
        fs::write(path("kvm"), "").unwrap();
        fs::write(path("pvm"), "").unwrap();
        fs::write(path("cpuinfo"), "flags : fpu vme").unwrap();
        assert!(sentence().contains("PVM"));
        fs::write(path("cpuinfo"), "flags : fpu svm").unwrap();
        assert!(sentence().contains("tun"));
        fs::write(path("tun"), "").unwrap();
        assert!(sentence().contains("no guest kernel"));
        fs::write(path("vmlinux"), "").unwrap();
        assert!(sentence().contains("no guest agent"));
        fs::write(path("volary"), "").unwrap();
        run(&host, &config).unwrap();
    }
}
