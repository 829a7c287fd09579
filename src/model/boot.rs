//! How guests come up beside the default way.

use crate::model::InvalidSpec;

/// What a VM's kernel starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootFrom {
    /// An initramfs whose `init` is the agent.
    #[default]
    Initramfs,
    /// The first disk and its own init, which starts the agent as a service.
    Disk,
    /// The first disk and its own init; there is no agent, and nothing that needs one works.
    DiskWithoutAgent,
}

impl BootFrom {
    const WORDS: [(BootFrom, &'static str); 3] = [
        (BootFrom::Initramfs, "initramfs"),
        (BootFrom::Disk, "disk"),
        (BootFrom::DiskWithoutAgent, "disk-without-agent"),
    ];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        BootFrom::WORDS.iter().find(|(known, _)| *known == self).map_or("", |(_, word)| word)
    }

    /// The one of that word.
    pub fn from_word(word: &str) -> Option<BootFrom> {
        BootFrom::WORDS.iter().find(|(_, known)| *known == word).map(|(boot, _)| *boot)
    }

    /// Whether there is an agent.
    pub fn has_agent(self) -> bool {
        self != BootFrom::DiskWithoutAgent
    }

    /// Whether the first disk is the root.
    pub fn is_disk(self) -> bool {
        self != BootFrom::Initramfs
    }
}

/// How a VM is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// A network card on the bridge, with a leased address.
    #[default]
    Bridged,
    /// No network card: the guest is reached by vsock alone, and reaches nothing.
    Vsock,
}

impl NetworkMode {
    const WORDS: [(NetworkMode, &'static str); 2] =
        [(NetworkMode::Bridged, "bridged"), (NetworkMode::Vsock, "vsock")];

    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        NetworkMode::WORDS.iter().find(|(known, _)| *known == self).map_or("", |(_, word)| word)
    }

    /// The one of that word.
    pub fn from_word(word: &str) -> Option<NetworkMode> {
        NetworkMode::WORDS.iter().find(|(_, known)| *known == word).map(|(mode, _)| *mode)
    }

    /// Whether the guest has a network card.
    pub fn has_card(self) -> bool {
        self == NetworkMode::Bridged
    }
}

/// Documents for cloud-init (its data source NoCloud). What is absent has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudInit {
    /// What to do.
    pub user_data: Option<String>,
    /// Who the instance is; by default `volant-ID` and the VM's name.
    pub meta_data: Option<String>,
    /// How its network is set up; absent leaves that to the guest.
    pub network_config: Option<String>,
}

impl CloudInit {
    /// Bytes of all documents: as much as the largest clouds take, times sixteen.
    const LEN_MAX: usize = 256 << 10;

    /// Documents of `over` take the place of these, each as a whole.
    #[must_use]
    pub fn overridden_by(self, over: CloudInit) -> CloudInit {
        CloudInit {
            user_data: over.user_data.or(self.user_data),
            meta_data: over.meta_data.or(self.meta_data),
            network_config: over.network_config.or(self.network_config),
        }
    }

    /// Checks what does not depend on the host.
    ///
    /// # Errors
    /// They are too long.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        let all = [&self.user_data, &self.meta_data, &self.network_config];
        let len: usize = all.into_iter().flatten().map(String::len).sum();
        if CloudInit::LEN_MAX < len {
            let reason = format!("at most {} bytes, not {len}", CloudInit::LEN_MAX);
            return Err(InvalidSpec { field: "cloud_init", reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_replaced_as_a_whole() {
        let text = |text: &str| Some(text.to_owned());
        let base = CloudInit { user_data: text("a"), meta_data: text("b"), network_config: None };
        let over = CloudInit { user_data: text("c"), meta_data: None, network_config: text("") };
        let merged = base.overridden_by(over);
        assert_eq!(
            (merged.user_data, merged.meta_data, merged.network_config),
            (text("c"), text("b"), text(""))
        );
        let long = CloudInit { user_data: Some("x".repeat(300 << 10)), ..CloudInit::default() };
        assert!(long.check().is_err());
    }
}
