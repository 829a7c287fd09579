//! VM names: the one identifier a user types. Used as host name, so RFC 1123 rules it.

use std::fmt;

/// A VM name: 1 to 63 bytes of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit
/// (an RFC 1123 label, since it becomes the guest's host name).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmName(String);

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Empty or longer than [`VmName::LEN_MAX`].
    #[error("a VM name has 1 to {max} characters, this one has {0}", max = VmName::LEN_MAX)]
    Length(usize),
    /// A character outside the alphabet.
    #[error("a VM name is made of a-z, 0-9 and '-'; {0:?} is not allowed")]
    Character(char),
    /// Begins or ends with `-`.
    #[error("a VM name begins and ends with a letter or a digit")]
    Edge,
}

impl VmName {
    /// The longest name, from RFC 1123 section 2.1 (a DNS label).
    pub const LEN_MAX: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for VmName {
    type Error = InvalidName;

    fn try_from(text: &str) -> Result<Self, InvalidName> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || VmName::LEN_MAX < text.len() {
            return Err(InvalidName::Length(text.chars().count()));
        }
        if let Some(refused) = text.chars().find(|c| !allowed(*c)) {
            return Err(InvalidName::Character(refused));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName::Edge);
        }
        Ok(VmName(text.to_owned()))
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "demo", "web-1", "0x", &"a".repeat(63)] {
            assert_eq!(VmName::try_from(good).expect("a valid name").as_str(), good);
        }
        for bad in ["", "-a", "a-", "a/b", "..", "Demo", "dеmo", "a_b", "a b", &"a".repeat(300)] {
            assert!(VmName::try_from(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
