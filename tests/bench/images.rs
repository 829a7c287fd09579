//! A VM of an image beside one without: what its root costs until the agent answers.

use serde_json::json;

use crate::daemon::{Daemon, named};
use crate::table::{Row, Series, Unit, publish};

/// Starts of each kind. Each follows one of its own kind as often as one of the other: what a guest
/// still has to do once it is ready disturbs both alike.
const ROUNDS: usize = 8;
/// Of an image VM's start to one without, in the median.
const RATIO_MAX: f64 = 1.3;
const MEMORY_MIB: u64 = 192;

/// Of one start: until the agent answered, until it connected, and KVM_RUN's returns.
#[derive(Default)]
struct Kind {
    ready_ms: Series,
    connected_ms: Series,
    exits: Series,
}

impl Kind {
    fn take(&mut self, daemon: &Daemon, name: &str, image: Option<&str>) {
        let mut body = json!({ "name": name, "memory_mb": MEMORY_MIB, "console": false });
        if let Some(image) = image {
            // It has nothing to do: the next guest shares its processor.
            (body["image"], body["command"]) = (json!(image), json!(["sleep", "1000000"]));
        }
        let vm = daemon.client().post("/api/v1/vms?wait=true&until=ready", &body).json();
        assert_eq!(vm["status"], "running", "{vm}");
        let steps = vm["boot"]["steps"].as_array().unwrap();
        let at_ms = |word: &str| {
            let step = steps.iter().find(|step| step["step"] == word).unwrap();
            step["at_us"].as_f64().unwrap() / 1e3
        };
        self.ready_ms.push(at_ms("agent_ready"));
        self.connected_ms.push(at_ms("agent_connected"));
        self.exits.push(vm["boot"]["exits"].as_f64().unwrap());
    }

    fn into_rows(self, name: &str) -> Vec<Row> {
        vec![
            Row::new(&format!("{name}: create to agent-ready"), Unit::Ms, self.ready_ms),
            Row::new("  of it until the agent connected", Unit::Ms, self.connected_ms),
            Row::new("  KVM_RUN returns", Unit::Count, self.exits),
        ]
    }
}

#[test]
fn an_image_costs_little_at_the_start() {
    let daemon = Daemon::start();
    let archive = named("VOLANT_TEST_IMAGES").join("servers.tar");
    let imported = daemon.ctl(&["images", "import", &archive.display().to_string()]);
    assert!(imported.status.success(), "{imported:?}");
    let image = Some("debian/servers:saved");
    let (mut with, mut without) = (Kind::default(), Kind::default());
    // Everything is read once before it is measured.
    Kind::default().take(&daemon, "warm-image", image);
    Kind::default().take(&daemon, "warm-plain", None);
    for round in 0..ROUNDS {
        let mut plain = || without.take(&daemon, &format!("plain-{round}"), None);
        if round % 2 == 0 {
            plain();
        }
        with.take(&daemon, &format!("image-{round}"), image);
        if round % 2 == 1 {
            plain();
        }
    }
    let ratio = with.ready_ms.median().unwrap() / without.ready_ms.median().unwrap();
    let mut rows = without.into_rows("initramfs");
    rows.extend(with.into_rows("image"));
    rows.push(Row::new("ratio of the medians", Unit::Ratio, Series::of(ratio)).at_most(RATIO_MAX));
    let is_missed = rows.iter().any(Row::is_missed);
    publish("images", &rows);
    assert!(!is_missed, "short of the target");
}
