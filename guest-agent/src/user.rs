//! Users and groups from /etc/passwd and /etc/group: a static binary has no NSS.

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

/// Finds a user, by name or number, with or without `:group`, in the texts of /etc/passwd and
/// /etc/group. A number needs no entry.
pub fn find(wanted: &str, passwd: &str, group: &str) -> Option<User> {
    let (user, wanted_gid) = match wanted.split_once(':') {
        Some((user, wanted)) => (user, Some(find_group(wanted, group)?)),
        None => (wanted, None),
    };
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        (name == user || uid == user).then_some((name, uid.parse().ok()?, gid.parse().ok()?, home))
    });
    let (name, uid, gid, home) = match entry {
        Some(entry) => entry,
        None => (user, user.parse().ok()?, 0, "/"),
    };
    let gid = wanted_gid.unwrap_or(gid);
    let mut groups = vec![gid];
    groups.extend(group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, members] = fields[..] else { return None };
        let id: u32 = id.parse().ok()?;
        (id != gid && members.split(',').any(|member| member == name)).then_some(id)
    }));
    Some(User { uid, gid, groups, home: home.to_owned() })
}

fn find_group(wanted: &str, group: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, ..] = fields[..] else { return None };
        (name == wanted).then(|| id.parse().ok())?
    });
    by_name.or_else(|| wanted.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlog:x:44:adm,web\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let web = find("web", PASSWD, GROUP).unwrap();
        assert_eq!((web.uid, web.gid, web.groups.clone()), (33, 33, vec![33, 44]));
        assert_eq!(find("33", PASSWD, GROUP), Some(web));
        let number = find("1000:2000", PASSWD, GROUP).unwrap();
        assert_eq!((number.uid, number.gid, number.home.as_str()), (1000, 2000, "/"));
        assert_eq!(find("web:log", PASSWD, GROUP).unwrap().gid, 44);
        assert_eq!(find("nobody", PASSWD, GROUP), None);
        assert_eq!(find("web:x", PASSWD, GROUP), None);
    }
}
