//! The plan, which is pure, and the record.

use std::net::Ipv4Addr;

use super::*;

fn planned(args: &SetupArgs, facts: &Facts) -> Vec<Step> {
    let text = plan::config_text(args, facts).unwrap();
    let config = config_of(&text, Path::new("/opt/volant/volantd")).unwrap();
    plan(args, facts, &config, text)
}

fn usual() -> SetupArgs {
    SetupArgs { config: config::FILE_DEFAULT.into(), ..SetupArgs::default() }
}

fn systemd() -> Facts {
    let executable = "/opt/volant/volantd".into();
    Facts { systemd: true, executable, ..Facts::default() }
}

fn contents(steps: &[Step], of: &str) -> Option<String> {
    steps.iter().find_map(|step| match step {
        Step::File { path, contents } if path == Path::new(of) => Some(contents.clone()),
        _ => None,
    })
}

#[test]
fn what_is_named_is_written_and_the_rest_stays() {
    let facts = Facts {
        config_text: "# mine\nbridge = \"vbr0\" # the first\n[http]\nhosts = [\"a\"]\n".to_owned(),
        kernel: Some("/usr/lib/volant/vmlinux".into()),
        ..systemd()
    };
    let args = SetupArgs {
        bridge: Some("vbr7".to_owned()),
        host_ip: Some(Ipv4Addr::new(10, 9, 0, 9)),
        subnet: Some("10.9.0.0/24".to_owned()),
        ..usual()
    };
    let text = plan::config_text(&args, &facts).unwrap();
    assert!(text.starts_with("# mine\nbridge = \"vbr7\" # the first\n"), "{text}");
    let config = config_of(&text, Path::new("/x/volantd")).unwrap();
    assert_eq!((config.bridge.as_str(), config.subnet.as_str()), ("vbr7", "10.9.0.0/24"));
    assert_eq!(config.http.hosts, ["a"]);
    assert_eq!(config.kernel, Path::new("/usr/lib/volant/vmlinux"));
    let again = Facts { config_text: text.clone(), ..facts };
    assert_eq!(plan::config_text(&usual(), &again).unwrap(), text, "a second run changes nothing");
    let bad = Facts { config_text: "bridge = ".to_owned(), ..systemd() };
    assert!(matches!(plan::config_text(&usual(), &bad), Err(SetupError::Config { .. })));
}

#[test]
fn files_that_are_named_are_copied_to_where_the_daemon_looks() {
    let args = SetupArgs {
        kernel: Some("/tmp/vmlinux".into()),
        state_dir: Some("/srv/state".into()),
        ..usual()
    };
    let steps = planned(&args, &systemd());
    let copy = Step::Copy {
        from: "/tmp/vmlinux".into(),
        to: "/srv/state/kernel/vmlinux".into(),
        mode: 0o644,
    };
    assert!(steps.contains(&copy), "{steps:?}");
    let more = "/etc/systemd/system/volantd.service.d/setup.conf";
    assert_eq!(contents(&steps, more).unwrap(), "[Service]\nReadWritePaths=/srv/state\n");
}

#[test]
fn units_are_written_unless_a_package_has_brought_them() {
    let service = "/etc/systemd/system/volantd.service";
    let steps = planned(&usual(), &systemd());
    let unit = contents(&steps, service).unwrap();
    assert!(unit.contains("\nExecStart=/opt/volant/volantd serve\n"), "{unit}");
    assert!(matches!(steps.last(), Some(Step::Started { .. })), "{steps:?}");
    let steps = planned(&usual(), &Facts { packaged: true, ..systemd() });
    assert_eq!(contents(&steps, service), None);
    let no_start = SetupArgs { no_start: true, ..usual() };
    assert!(matches!(planned(&no_start, &systemd()).last(), Some(Step::Enabled { .. })));
    let without = [
        planned(&SetupArgs { no_systemd: true, ..usual() }, &systemd()),
        planned(&usual(), &Facts { systemd: false, ..systemd() }),
    ];
    for steps in without {
        let is_service = |step: &Step| {
            matches!(step, Step::User { .. } | Step::Enabled { .. } | Step::Started { .. })
        };
        assert!(!steps.iter().any(is_service), "{steps:?}");
    }
}

#[test]
fn a_bridge_of_somebody_else_is_not_taken_back() {
    let is_network = |step: &Step| matches!(step, Step::Network { .. });
    assert!(planned(&usual(), &systemd()).iter().any(is_network));
    let foreign = Facts { foreign_bridge: true, ..systemd() };
    assert!(!planned(&usual(), &foreign).iter().any(is_network));
}

#[test]
fn files_are_made_written_down_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = at("etc/volantd.toml");
    fs::write(at("old"), "mine").unwrap();
    let file = |name: &str| Step::File { path: at(name), contents: "new".to_owned() };
    let steps = [
        Step::Folder { path: at("etc"), mode: 0o755, owner: None },
        file("etc/a"),
        file("old"),
        Step::Token { path: at("etc/token"), owner: None },
    ];
    let root = folder.path();
    let mut record = Record { path: Record::path(&config), steps: Vec::new() };
    for step in &steps {
        assert!(!step.holds(root), "{step}");
        record.note(step).unwrap();
        step.make(root).unwrap();
        assert!(step.holds(root), "{step}");
    }
    let read = Record::read(&config).unwrap().unwrap();
    let noted: Vec<String> = read.steps.iter().map(Step::to_string).collect();
    assert_eq!(noted, [steps[0].to_string(), steps[1].to_string()], "what was there is not noted");
    record.note(&file("etc/a")).unwrap();
    assert_eq!(record.steps.len(), 2, "twice is once");
    for step in read.steps.iter().rev() {
        step.take_back(root).unwrap();
        step.take_back(root).unwrap();
    }
    assert!(!at("etc/a").exists() && at("etc/token").exists(), "a folder with more in it stays");
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "new");
}
