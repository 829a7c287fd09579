//! Many guests in one daemon: what each costs, and that none of them is another's concern.

use futures_util::future::join_all;
use hyper::Method;

use crate::daemon::Daemon;

const VMS: usize = 20;
/// What one more idle VM may cost the daemon, its RAM aside.
const PRIVATE_KIB_PER_VM_MAX: u64 = 1536;

#[test]
fn twenty_guests_with_traffic_and_three_that_misbehave() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let names: Vec<String> = (0..VMS).map(|number| format!("vm-{number}")).collect();
    let (first, others) = names.split_first().unwrap();
    let create = async |name: &String| {
        let body = serde_json::json!({ "name": name, "memory_mb": 96 }).to_string();
        let vm =
            client.send(Method::POST, "/api/v1/vms?wait=true&timeout_ms=300000", body).await.json();
        assert_eq!(vm["status"], "running", "{vm}");
    };
    client.runtime.block_on(create(first));
    let (with_one, threads_with_one) = (daemon.private_kib(), daemon.threads_but_vcpus());
    client.runtime.block_on(join_all(others.iter().map(create)));
    let each = (daemon.private_kib() - with_one) / others.len() as u64;
    assert!(each <= PRIVATE_KIB_PER_VM_MAX, "one more idle VM costs {each} KiB");
    // Those that built them end when they have had nothing to do for a while.
    daemon.wait("as many threads as with one VM, vCPUs aside", || {
        daemon.threads_but_vcpus() <= threads_with_one
    });

    let serve = async |name: &String| {
        let page = format!("mkdir /www && echo {name} > /www/index.html");
        client.shell(name, &format!("{page} && httpd -p 8080 -h /www")).await;
    };
    client.runtime.block_on(join_all(names.iter().map(serve)));
    let fetch = async |name: &String| {
        let path = format!("/api/v1/vms/{name}/proxy/8080/");
        let answer = client.send(Method::GET, &path, "").await;
        assert_eq!(answer.body, format!("{name}\n"), "{answer:?}");
    };
    client.runtime.block_on(join_all(names.iter().map(fetch)));

    let [panics, leaves, spins, well @ ..] = names.as_slice() else { panic!("too few") };
    let shell = |name: &str, line: &str| daemon.ctl(&["vms", "exec", name, "--", "sh", "-c", line]);
    shell(spins, "for i in 1 2 3 4; do while :; do :; done & done");
    shell(panics, "echo c > /proc/sysrq-trigger");
    shell(leaves, "kill -TERM 1");
    daemon.wait_for_status(panics, "failed");
    daemon.wait_for_status(leaves, "stopped");
    client.runtime.block_on(join_all(well.iter().map(fetch)));
    client.runtime.block_on(fetch(spins));
    let list = client.get("/api/v1/vms").json();
    let running = list.as_array().unwrap().iter().filter(|vm| vm["status"] == "running").count();
    assert_eq!(running, VMS - 2, "{list}");
    // One that spins is stopped like any other, and the address of one that left is its own again.
    assert!(daemon.ctl(&["vms", "stop", spins]).status.success());
    assert!(daemon.ctl(&["vms", "start", leaves]).status.success());
}
