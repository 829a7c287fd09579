use proptest::prelude::*;
use volant_protocol::{Decoder, Probe};

use super::*;

fn restart(policy: RestartPolicy, retries_max: Option<u32>) -> Restart {
    Restart { policy, backoff_min_ms: 100, backoff_max_ms: 350, retries_max }
}

#[test]
fn pauses_double_to_their_maximum_and_begin_anew_after_a_life() {
    let restart = restart(RestartPolicy::Always, None);
    let mut backoff = Backoff::new(&restart);
    let pauses = |backoff: &mut Backoff<'_>, lived_ms| match backoff
        .next(true, Duration::from_millis(lived_ms))
    {
        Next::After(pause) => pause.as_millis(),
        other => panic!("{other:?}"),
    };
    let row: Vec<_> = (0..4).map(|_| pauses(&mut backoff, 0)).collect();
    assert_eq!(row, [100, 200, 350, 350]);
    assert_eq!(pauses(&mut backoff, Restart::RESET_AFTER_MS), 100);
}

#[test]
fn policies_decide_by_the_exit() {
    let table = [
        (RestartPolicy::Never, true, Next::Finished),
        (RestartPolicy::Never, false, Next::Failed),
        (RestartPolicy::OnFailure, true, Next::Finished),
        (RestartPolicy::OnFailure, false, Next::After(Duration::from_millis(100))),
        (RestartPolicy::Always, true, Next::After(Duration::from_millis(100))),
        (RestartPolicy::Always, false, Next::After(Duration::from_millis(100))),
    ];
    for (policy, success, expected) in table {
        let restart = restart(policy, None);
        assert_eq!(Backoff::new(&restart).next(success, Duration::ZERO), expected, "{policy:?}");
    }
    let restart = restart(RestartPolicy::OnFailure, Some(2));
    let mut backoff = Backoff::new(&restart);
    let row: Vec<_> = (0..3).map(|_| backoff.next(false, Duration::ZERO)).collect();
    assert!(matches!(row[..], [Next::After(_), Next::After(_), Next::Failed]), "{row:?}");
}

fn check(start_period_ms: u64, retries: u32) -> HealthCheck {
    let probe = Probe::Tcp { port: 80 };
    HealthCheck { probe, interval_ms: 1000, timeout_ms: 1000, retries, start_period_ms }
}

proptest! {
    /// Against the words of the contract: outside the start period, the condition is ready after a
    /// success and unhealthy after `retries` failures in a row.
    #[test]
    fn the_judge_counts_failures_in_a_row(
        retries in 1u32..5,
        looks in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let check = check(0, retries);
        let mut judge = Judge::new(&check);
        let mut row = 0;
        for healthy in looks {
            row = if healthy { 0 } else { row + 1 };
            let said = judge.judge(if healthy { Ok(()) } else { Err("no".to_owned()) });
            let said = said.map(|(condition, _)| condition);
            let expected = match (healthy, retries <= row) {
                (true, _) => Some(WorkloadCondition::Ready),
                (false, true) => Some(WorkloadCondition::Unhealthy),
                (false, false) => None,
            };
            prop_assert_eq!(said, expected);
        }
    }
}

#[test]
fn failures_of_the_start_period_do_not_count() {
    let check = check(60_000, 1);
    let mut judge = Judge::new(&check);
    assert_eq!(judge.judge(Err("no".to_owned())), None);
    let pauses: Vec<_> = (0..6).map(|_| judge.pause().as_millis()).collect();
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000], "looked at more often while starting");
    assert!((0..1000).all(|_| judge.pause().as_millis() == 1000), "for as long as that takes");
    assert!(judge.judge(Ok(())).is_some());
    assert_eq!(judge.pause().as_millis(), 1000);
    let said = judge.judge(Err("no".to_owned()));
    assert!(matches!(said, Some((WorkloadCondition::Unhealthy, _))), "a success ends the period");
}

fn shell(line: &str, restart: Restart) -> Workload {
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    Workload { argv, restart, ..Workload::default() }
}

/// Follows until the condition; all that came on the way.
async fn follow(supervisor: &Supervisor, until: WorkloadCondition) -> (String, WorkloadReport) {
    let (mut near, far) = tokio::io::duplex(1024);
    let (mut decoder, mut text) = (Decoder::default(), String::new());
    let read = async {
        let mut buffer = [0; 1024];
        loop {
            while let Some(frame) = decoder.next_frame().unwrap() {
                match frame.kind {
                    FrameKind::Report => {
                        let report: WorkloadReport =
                            serde_json::from_slice(&frame.payload).unwrap();
                        if report.condition == until {
                            return report;
                        }
                    }
                    _ => text.push_str(std::str::from_utf8(&frame.payload).unwrap()),
                }
            }
            let count = near.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the supervisor has hung up");
            decoder.extend(&buffer[..count]);
        }
    };
    let report = tokio::select! {
        report = timeout(Duration::from_secs(20), read) => report.unwrap(),
        () = supervisor.attend(far) => panic!("displaced"),
    };
    (text, report)
}

#[tokio::test]
async fn a_failing_process_is_restarted_until_it_is_given_up() {
    let policy = Restart {
        backoff_min_ms: 1,
        backoff_max_ms: 2,
        ..restart(RestartPolicy::OnFailure, Some(2))
    };
    let workload = shell("echo out; echo err >&2; exit 7", policy);
    let reaper = Reaper::start().unwrap();
    let supervisor = Supervisor::start(workload, BTreeMap::new(), reaper);
    let (text, report) = follow(&supervisor, WorkloadCondition::Failed).await;
    assert_eq!((text.matches("out").count(), text.matches("err").count()), (3, 3), "{text}");
    assert_eq!(report.exits, 3);
    assert_eq!(report.reason, "it ended with exit code 7, after 2 restarts");
    assert_eq!(report.last_exit.unwrap().code, Some(7));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let workload = Workload {
        argv: vec!["/no/such".to_owned()],
        restart: restart(RestartPolicy::Never, None),
        ..Workload::default()
    };
    let supervisor = Supervisor::start(workload, BTreeMap::new(), Reaper::start().unwrap());
    let (_, report) = follow(&supervisor, WorkloadCondition::Failed).await;
    assert!(report.reason.starts_with("it could not be started: /no/such: "), "{}", report.reason);
}

#[tokio::test]
async fn a_stopped_process_gets_its_own_signal_and_is_not_restarted() {
    // It goes on saying so: a word that was said before we listened is not said to us.
    let line = "trap 'echo bye; exit 0' INT; while :; do echo up; sleep 0.01; done";
    let mut workload = shell(line, restart(RestartPolicy::Always, None));
    workload.stop_signal = Some(2);
    let supervisor = Supervisor::start(workload, BTreeMap::new(), Reaper::start().unwrap());
    let (mut text, _) = follow(&supervisor, WorkloadCondition::Ready).await;
    while !text.contains("up") {
        // It may be ready before it has written its first word.
        let mut follower = supervisor.shared.output.follow();
        let frame = timeout(Duration::from_secs(20), follower.next()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.payload).unwrap());
    }
    timeout(Duration::from_secs(20), supervisor.stop()).await.unwrap();
    let (text, report) = follow(&supervisor, WorkloadCondition::Finished).await;
    assert!(text.ends_with("bye\n"), "{text}");
    assert_eq!(report.exits, 1);
}

#[tokio::test]
async fn health_makes_it_ready_and_unhealthy() {
    let folder = std::env::temp_dir().join(format!("volary-health-{}", std::process::id()));
    let mark = folder.to_string_lossy().into_owned();
    let mut workload = shell("while :; do sleep 0.01; done", restart(RestartPolicy::Never, None));
    workload.health = Some(HealthCheck {
        probe: Probe::Exec { argv: ["/usr/bin/test", "-e", &mark].map(str::to_owned).to_vec() },
        interval_ms: 50,
        ..check(60_000, 2)
    });
    let supervisor = Supervisor::start(workload, BTreeMap::new(), Reaper::start().unwrap());
    follow(&supervisor, WorkloadCondition::Starting).await;
    std::fs::write(&folder, "").unwrap();
    follow(&supervisor, WorkloadCondition::Ready).await;
    std::fs::remove_file(&folder).unwrap();
    let (_, report) = follow(&supervisor, WorkloadCondition::Unhealthy).await;
    assert_eq!(report.reason, "/usr/bin/test: exit code 1");
    supervisor.stop().await;
}
