//! What each word and choice of docs/boot.md buys: the same start with one of them undone.

use serde_json::{Value, json};

use crate::daemon::{Daemon, named};
use crate::table::{Row, Series, Unit, publish};

/// Starts of each variant, turn and turn about.
const ROUNDS: usize = 3;

fn variants() -> Vec<(&'static str, Value)> {
    let bzimage = named("VOLANT_BZIMAGE").display().to_string();
    vec![
        ("all of them, no console", json!({ "console": false })),
        ("with the console", json!({})),
        ("with the console, kernel not quiet", json!({ "kernel_cmdline": "loglevel=8" })),
        (
            "the UART probed, though not used",
            json!({ "console": false, "kernel_cmdline": "8250.nr_uarts=4" }),
        ),
        (
            "RCU not expedited",
            json!({ "console": false, "kernel_cmdline": "rcupdate.rcu_expedited=0" }),
        ),
        (
            "the CPU's random not trusted",
            json!({ "console": false, "kernel_cmdline": "random.trust_cpu=off" }),
        ),
        ("64-bit entry instead of PVH", json!({ "console": false, "boot_protocol": "linux64" })),
        ("bzImage instead of ELF", json!({ "console": false, "kernel": bzimage })),
        ("2 vCPUs", json!({ "console": false, "cpu_cores": 2 })),
        ("512 MiB instead of 96", json!({ "console": false, "memory_mb": 512 })),
    ]
}

#[test]
fn what_each_trick_buys() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let mut figures: Vec<(Series, Series)> =
        variants().iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS {
        for (index, (_, change)) in variants().iter().enumerate() {
            let mut body = json!({ "name": format!("v{index}-{round}"), "memory_mb": 96 });
            let fields = change.as_object().unwrap().clone();
            body.as_object_mut().unwrap().extend(fields);
            let vm = client.post("/api/v1/vms?wait=true", &body).json();
            assert_eq!(vm["status"], "running", "{vm}");
            let ready = vm["boot"]["steps"].as_array().unwrap().last().unwrap();
            figures[index].0.push(ready["at_us"].as_f64().unwrap() / 1e3);
            figures[index].1.push(vm["boot"]["exits"].as_f64().unwrap());
        }
    }
    let rows: Vec<Row> = variants()
        .into_iter()
        .zip(figures)
        .flat_map(|((name, _), (ms, exits))| {
            let exits_name = "  its KVM_RUN returns";
            [Row::new(name, Unit::Ms, ms), Row::new(exits_name, Unit::Count, exits)]
        })
        .collect();
    publish("tricks", &rows);
}
