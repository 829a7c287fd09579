//! What an image's configuration means to a guest: the workload, and the folders that must be there.

use std::collections::BTreeMap;

use volant_protocol::{HealthCheck, Probe, Workload, signal_number};

use crate::artifact::oci::ImageError;
use crate::artifact::oci::document::{Healthcheck, RunConfig};

/// Docker's defaults for health checks.
const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 30_000;
const RETRIES: u32 = 3;
/// The environment of everything that runs in an image.
pub fn environment(run: &RunConfig) -> BTreeMap<String, String> {
    // A name without a value is what Docker takes from the host; there is none.
    let pairs = run.env.iter().filter_map(|variable| variable.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The workload of an image. What `given` says wins. None when neither names a program.
///
/// # Errors
/// A value of the image makes no sense.
pub fn workload(run: &RunConfig, given: Option<Workload>) -> Result<Option<Workload>, ImageError> {
    let given = given.unwrap_or_default();
    let image_argv = || [run.entrypoint.clone(), run.cmd.clone()].concat();
    let argv = if given.argv.is_empty() { image_argv() } else { given.argv };
    if argv.is_empty() {
        return Ok(None);
    }
    let health = run.healthcheck.as_ref().and_then(health);
    let stop_signal =
        match run.stop_signal.as_str() {
            "" => None,
            text => Some(signal_number(text).ok_or_else(|| {
                ImageError::Invalid(format!("the stop signal {text:.40?} is none"))
            })?),
        };
    let user = (!run.user.is_empty()).then(|| run.user.clone());
    Ok(Some(Workload {
        argv,
        env: given.env,
        cwd: given.cwd.or_else(|| folder(&run.working_dir)),
        user: given.user.or(user),
        stop_signal: given.stop_signal.or(stop_signal),
        restart: given.restart,
        health: given.health.or(health),
    }))
}

/// Folders that must exist before the workload starts: its own, and those that hold data.
pub fn folders(run: &RunConfig) -> Vec<String> {
    let folders = run.volumes.iter().chain([&run.working_dir]);
    folders.filter_map(|text| folder(text)).collect()
}

fn folder(text: &str) -> Option<String> {
    match text {
        "" => None,
        text if text.starts_with('/') => Some(text.to_owned()),
        text => Some(format!("/{text}")),
    }
}

fn health(check: &Healthcheck) -> Option<HealthCheck> {
    let argv = match check.test.split_first()? {
        (kind, rest) if kind == "CMD" => rest.to_vec(),
        (kind, rest) if kind == "CMD-SHELL" => {
            ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(rest.first().cloned()).collect()
        }
        _ => return None,
    };
    let ms = |nanos: i64, default: u64| match u64::try_from(nanos / 1_000_000) {
        Ok(ms) if 0 < nanos => ms.max(1),
        _ => default,
    };
    let retries = u32::try_from(check.retries).ok().filter(|retries| 0 < *retries);
    Some(HealthCheck {
        probe: Probe::Exec { argv },
        interval_ms: ms(check.interval, INTERVAL_MS),
        timeout_ms: ms(check.timeout, TIMEOUT_MS),
        retries: retries.unwrap_or(RETRIES),
        start_period_ms: ms(check.start_period, 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_images_configuration_is_a_workload() {
        let run = RunConfig {
            entrypoint: words("python3 -m"),
            cmd: words("http.server 8000"),
            env: words("A=1 B=x=y C =z"),
            working_dir: "srv/www".to_owned(),
            user: "www-data".to_owned(),
            stop_signal: "SIGQUIT".to_owned(),
            volumes: vec!["/data".to_owned()],
            healthcheck: Some(Healthcheck {
                test: vec!["CMD-SHELL".to_owned(), "true || false".to_owned()],
                interval: 5_000_000_000,
                ..Healthcheck::default()
            }),
            ..RunConfig::default()
        };
        let workload = workload(&run, None).unwrap().unwrap();
        assert_eq!(workload.argv, words("python3 -m http.server 8000"));
        let env = environment(&run);
        assert_eq!((env["B"].as_str(), env.len()), ("x=y", 2));
        assert_eq!(workload.cwd.as_deref(), Some("/srv/www"));
        assert_eq!((workload.user.as_deref(), workload.stop_signal), (Some("www-data"), Some(3)));
        assert_eq!(folders(&run), ["/data", "/srv/www"]);
        let health = workload.health.unwrap();
        assert_eq!((health.interval_ms, health.timeout_ms, health.retries), (5000, 30_000, 3));
        let Probe::Exec { argv } = health.probe else { panic!("not exec") };
        assert_eq!(argv, ["/bin/sh", "-c", "true || false"]);
    }

    #[test]
    fn what_is_given_wins() {
        let run = RunConfig { cmd: words("a"), user: "u".to_owned(), ..RunConfig::default() };
        let given = Workload {
            argv: words("b c"),
            env: BTreeMap::from([("B".to_owned(), "3".to_owned())]),
            ..Workload::default()
        };
        let merged = workload(&run, Some(given)).unwrap().unwrap();
        assert_eq!(merged.argv, words("b c"));
        assert_eq!((merged.env["B"].as_str(), merged.user.as_deref()), ("3", Some("u")));
        assert_eq!(workload(&RunConfig::default(), None).unwrap(), None);
    }

    #[test]
    fn an_image_may_say_that_it_has_no_health_check() {
        let none = Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() };
        assert_eq!(health(&none), None);
    }
}
