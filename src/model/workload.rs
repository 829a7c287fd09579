//! A workload whose every value is within its limits. The plain data are the protocol's, since they
//! go to the guest as they are.

use volant_protocol::{HealthCheck, Probe, Restart};

use crate::model::InvalidSpec;

/// A checked workload. Made by `TryFrom` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload(volant_protocol::Workload);

impl Workload {
    /// Arguments and variables together.
    pub const WORDS_MAX: usize = 4096;
    /// Bytes of all arguments and variables: half of what the kernel takes for one program.
    pub const WORDS_LEN_MAX: usize = 64 * 1024;
    /// The longest duration in a policy or health check: an hour.
    pub const DURATION_MS_MAX: u64 = 3_600_000;
    /// Health checks are at least this far apart, in milliseconds.
    pub const INTERVAL_MS_MIN: u64 = 50;
    /// Failures in a row that a health check may wait for.
    pub const RETRIES_MAX: u32 = 1000;
    /// Bytes of a folder, a user or a path.
    pub const TEXT_LEN_MAX: usize = 4096;

    /// The plain data.
    pub fn plain(&self) -> &volant_protocol::Workload {
        &self.0
    }
}

impl TryFrom<volant_protocol::Workload> for Workload {
    type Error = InvalidSpec;

    fn try_from(plain: volant_protocol::Workload) -> Result<Workload, InvalidSpec> {
        check_words(&plain)?;
        if let Some(cwd) = &plain.cwd
            && !(cwd.starts_with('/') && is_text(cwd))
        {
            return refuse("workload.cwd", "an absolute path");
        }
        let plain_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        if let Some(user) = &plain.user
            && (!user.chars().all(plain_name) || user.is_empty() || !is_text(user))
        {
            return refuse("workload.user", "name, uid, or uid:gid");
        }
        if plain.stop_signal.is_some_and(|number| !(1..=64).contains(&number)) {
            return refuse("workload.stop_signal", "a signal's number is 1 to 64");
        }
        check_restart(&plain.restart)?;
        plain.health.as_ref().map_or(Ok(()), check_health)?;
        Ok(Workload(plain))
    }
}

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T, InvalidSpec> {
    Err(InvalidSpec { field, reason: reason.into() })
}

fn is_text(text: &str) -> bool {
    text.len() <= Workload::TEXT_LEN_MAX && !text.contains('\0')
}

fn check_argv(field: &'static str, argv: &[String]) -> Result<(), InvalidSpec> {
    if argv.first().is_none_or(String::is_empty) {
        return refuse(field, "must name a program");
    }
    let len: usize = argv.iter().map(String::len).sum();
    if Workload::WORDS_MAX < argv.len() || Workload::WORDS_LEN_MAX < len {
        let (words, bytes) = (Workload::WORDS_MAX, Workload::WORDS_LEN_MAX);
        return refuse(field, format!("at most {words} words with {bytes} bytes"));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return refuse(field, "a zero byte");
    }
    Ok(())
}

fn check_words(plain: &volant_protocol::Workload) -> Result<(), InvalidSpec> {
    check_argv("workload.argv", &plain.argv)?;
    let len: usize = plain.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if Workload::WORDS_MAX < plain.env.len() || Workload::WORDS_LEN_MAX < len {
        let (words, bytes) = (Workload::WORDS_MAX, Workload::WORDS_LEN_MAX);
        return refuse("workload.env", format!("at most {words} variables with {bytes} bytes"));
    }
    let bad_name = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    if plain.env.iter().any(|(name, value)| bad_name(name) || value.contains('\0')) {
        return refuse("workload.env", "names without '=', no zero bytes");
    }
    Ok(())
}

fn check_restart(restart: &Restart) -> Result<(), InvalidSpec> {
    let max = Workload::DURATION_MS_MAX;
    if !(1..=max).contains(&restart.backoff_max_ms)
        || !(1..=restart.backoff_max_ms).contains(&restart.backoff_min_ms)
    {
        return refuse(
            "workload.restart",
            format!("1 <= backoff_min_ms <= backoff_max_ms <= {max}"),
        );
    }
    Ok(())
}

fn check_health(health: &HealthCheck) -> Result<(), InvalidSpec> {
    let max = Workload::DURATION_MS_MAX;
    let check = |field, value: u64, min: u64, max: u64| match (min..=max).contains(&value) {
        true => Ok(()),
        false => refuse(field, format!("{min} to {max}, not {value}")),
    };
    check("workload.health.interval_ms", health.interval_ms, Workload::INTERVAL_MS_MIN, max)?;
    check("workload.health.timeout_ms", health.timeout_ms, 1, max)?;
    check("workload.health.start_period_ms", health.start_period_ms, 0, max)?;
    let retries = u64::from(health.retries);
    check("workload.health.retries", retries, 1, u64::from(Workload::RETRIES_MAX))?;
    match &health.probe {
        Probe::Http { port: 0, .. } | Probe::Tcp { port: 0 } => {
            refuse("workload.health.port", "a port is 1 to 65535")
        }
        Probe::Http { path, .. } => {
            // It becomes part of a request line.
            let plain = path.starts_with('/') && path.chars().all(|c| matches!(c, '!'..='~'));
            if plain && is_text(path) {
                Ok(())
            } else {
                refuse("workload.health.path", "begins with '/', printable ASCII without spaces")
            }
        }
        Probe::Tcp { .. } => Ok(()),
        Probe::Exec { argv } => check_argv("workload.health.argv", argv),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn plain() -> volant_protocol::Workload {
        volant_protocol::Workload {
            argv: vec!["httpd".to_owned(), "-f".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            cwd: Some("/www".to_owned()),
            user: Some("33:33".to_owned()),
            stop_signal: Some(3),
            health: Some(http("/health?full=1", 80)),
            ..volant_protocol::Workload::default()
        }
    }

    fn http(path: &str, port: u16) -> HealthCheck {
        HealthCheck {
            probe: Probe::Http { port, path: path.to_owned() },
            interval_ms: 1000,
            timeout_ms: 1000,
            retries: 3,
            start_period_ms: 0,
        }
    }

    #[test]
    fn each_rule_refuses_by_field() {
        type Change = fn(&mut volant_protocol::Workload);
        let table: [(&str, Change); 17] = [
            ("workload.argv", |w| w.argv.clear()),
            ("workload.argv", |w| w.argv[0].clear()),
            ("workload.argv", |w| w.argv[1].push('\0')),
            ("workload.argv", |w| w.argv[1] = "x".repeat(Workload::WORDS_LEN_MAX)),
            ("workload.env", |w| _ = w.env.insert("A=B".to_owned(), String::new())),
            ("workload.env", |w| _ = w.env.insert(String::new(), String::new())),
            ("workload.cwd", |w| w.cwd = Some("www".to_owned())),
            ("workload.user", |w| w.user = Some("a b".to_owned())),
            ("workload.user", |w| w.user = Some(String::new())),
            ("workload.stop_signal", |w| w.stop_signal = Some(65)),
            ("workload.restart", |w| w.restart.backoff_min_ms = 0),
            ("workload.restart", |w| w.restart.backoff_max_ms = 1),
            ("workload.health.port", |w| w.health = Some(http("/", 0))),
            ("workload.health.path", |w| w.health = Some(http("x", 80))),
            ("workload.health.path", |w| w.health = Some(http("/ HTTP/1.1\r\n", 80))),
            ("workload.health.interval_ms", |w| {
                w.health = Some(HealthCheck { interval_ms: 0, ..http("/", 80) });
            }),
            ("workload.health.retries", |w| {
                w.health = Some(HealthCheck { retries: 0, ..http("/", 80) });
            }),
        ];
        assert_eq!(Workload::try_from(plain()).unwrap().plain(), &plain());
        for (field, change) in table {
            let mut wrong = plain();
            change(&mut wrong);
            let refused = Workload::try_from(wrong.clone()).expect_err(field);
            assert_eq!(refused.field, field, "{wrong:?}");
        }
    }
}
