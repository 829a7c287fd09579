//! Users and groups of `/etc/passwd` and `/etc/group`. Those of a directory service are not asked: what
//! is looked for here are the host's own system accounts.

use std::fs;
use std::path::Path;

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Number of its own group.
    pub gid: u32,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Users that have it beside their own.
    pub members: Vec<String>,
}

/// All users; none where the file cannot be read. `root` is the folder that `/etc` is in.
pub fn users(root: &Path) -> Vec<User> {
    let text = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        Some(User { name, uid, gid: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(user).collect()
}

/// All groups; none where the file cannot be read.
pub fn groups(root: &Path) -> Vec<Group> {
    let text = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next()?.split(',').filter(|name| !name.is_empty());
        Some(Group { name, gid, members: members.map(str::to_owned).collect() })
    };
    text.lines().filter_map(group).collect()
}

/// The user of this name.
pub fn user(root: &Path, name: &str) -> Option<User> {
    users(root).into_iter().find(|user| user.name == name)
}

/// The group of this name.
pub fn group(root: &Path, name: &str) -> Option<Group> {
    groups(root).into_iter().find(|group| group.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_make_no_sense_are_no_accounts() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        assert_eq!(user(root.path(), "root"), None);
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad\nvolant:x:990:989::/:/bin/false\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(root.path().join("etc/group"), "kvm:x:104:volant,me\nx:y\nvolant:x:989:\n")
            .unwrap();
        assert_eq!(users(root.path()).len(), 2);
        assert_eq!(user(root.path(), "volant").map(|user| (user.uid, user.gid)), Some((990, 989)));
        assert_eq!(group(root.path(), "kvm").unwrap().members, ["volant", "me"]);
        assert!(group(root.path(), "volant").unwrap().members.is_empty());
        assert_eq!(group(root.path(), "x"), None);
    }
}
