//! vsock: many connections, all ways of ending one, and bounded memory whatever the reader does.
//!
//! What only the VMM's own interface can ask for (a port nobody listens on) is asked of a machine
//! that this program builds by itself; everything else goes through the daemon, as for a user.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use volant_protocol::{AGENT_PORT, HOST_PORT};
use volantd::artifact::default_initramfs;
use volantd::vmm::{BootProtocol, Hypervisor, Machine, Spec, Vsock, VsockStream};

use crate::daemon::{Daemon, named};

/// MiB sent each way unless VOLANT_TEST_TRANSFER_MIB says otherwise: `make stress` sends 256.
const TRANSFER_MIB_DEFAULT: usize = 32;
/// What the daemon may need for it beyond what it has: the receive buffer of vsock (256 KiB), and
/// buffers of the proxy and of the allocator.
const GROWTH_KIB_MAX: u64 = 4 << 10;
/// Bytes between looks at the daemon's memory.
const LOOK_EVERY: usize = 8 << 20;
const CONNECTIONS: usize = 200;
const DEADLINE: Duration = Duration::from_secs(60);

fn transfer_len() -> usize {
    let mib = std::env::var("VOLANT_TEST_TRANSFER_MIB").ok();
    mib.map_or(TRANSFER_MIB_DEFAULT, |mib| mib.parse().unwrap()) << 20
}

#[test]
fn a_slow_reader_costs_no_memory_and_no_byte() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let (client, len) = (daemon.client(), transfer_len());
    client.runtime.block_on(async {
        let serve = format!("nc -ll -p 9001 -e head -c {len} /dev/zero >/dev/null 2>&1 &");
        client.shell("one", &serve).await;
        client.shell("one", "until netstat -ltn | grep -q :9001; do sleep 0.1; done").await;
        let before = daemon.private_kib();
        let bounded = |when: &str| {
            let now = daemon.private_kib();
            assert!(now < before + GROWTH_KIB_MAX, "{when}: {before} KiB became {now} KiB");
        };

        let mut stream = client.tcp("one", 9001).await;
        // Nobody reads: the sender fills every buffer on the way and then stands still.
        let sent = "awk '/wchar/ { print $2 }' /proc/$(pidof head)/io";
        let mut last = String::new();
        daemon
            .wait_async("the sender to stand still", async || {
                let now = client.shell("one", sent).await;
                let still = now == last && now.trim() != "0";
                last = now;
                still
            })
            .await;
        assert!(last.trim().parse::<usize>().unwrap() < len / 2, "{last} bytes");
        bounded("a reader that does not read");
        let (mut received, mut buffer) = (0, vec![1; 256 << 10]);
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                count => {
                    assert!(buffer[..count].iter().all(|byte| *byte == 0));
                    if received / LOOK_EVERY != (received + count) / LOOK_EVERY {
                        bounded("a reader that reads");
                    }
                    received += count;
                }
            }
        }
        assert_eq!(received, len);
    });
}

#[test]
fn a_guest_that_reads_slowly_slows_the_writer_and_gets_all() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let (client, len) = (daemon.client(), transfer_len());
    client.runtime.block_on(async {
        let read = "nc -ll -p 9002 -e sh -c 'sleep 5; wc -c' >/dev/null 2>&1 &";
        client.shell("one", read).await;
        client.shell("one", "until netstat -ltn | grep -q :9002; do sleep 0.1; done").await;
        let mut stream = client.tcp("one", 9002).await;
        let before = daemon.private_kib();
        let block = vec![7; 1 << 20];
        for sent in 0..len / block.len() {
            stream.write_all(&block).await.unwrap();
            if (sent * block.len()).is_multiple_of(LOOK_EVERY) {
                let now = daemon.private_kib();
                assert!(now < before + GROWTH_KIB_MAX, "{before} KiB became {now} KiB");
            }
        }
        // Half-closed: the guest sees the end, and its answer still comes.
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer.trim(), len.to_string());
    });
}

#[test]
fn the_guests_end_of_a_connection_is_seen() {
    let daemon = Daemon::start();
    daemon.create("one", &[]);
    let client = daemon.client();
    client.runtime.block_on(async {
        client.shell("one", "nc -ll -p 9003 -e sleep 7654 >/dev/null 2>&1 &").await;
        client.shell("one", "until netstat -ltn | grep -q :9003; do sleep 0.1; done").await;
        let mut first = client.tcp("one", 9003).await;
        let mut second = client.tcp("one", 9003).await;
        let mut byte = [0];
        client.shell("one", "kill -9 $(pidof sleep)").await;
        let ended = timeout(DEADLINE, first.read(&mut byte)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        client.shell("one", "kill -9 $(pidof nc); ! pidof sleep || kill -9 $(pidof sleep)").await;
        let ended = timeout(DEADLINE, second.read(&mut byte)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    });
}

/// A machine of this program's own, its agent waiting for work.
fn machine(folder: &std::path::Path) -> Machine {
    let open = |path: &std::path::Path| std::fs::File::open(path).unwrap();
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").unwrap();
    let hypervisor = Hypervisor::new(kvm.into(), 1).unwrap();
    let initramfs = default_initramfs(folder, &named("VOLARY"), None).unwrap();
    let spec = Spec {
        label: "test".to_owned(),
        vcpus: 1,
        memory_mib: 128,
        huge_pages: false,
        kernel: open(&named("VOLANT_KERNEL")),
        initramfs: Some(open(&initramfs)),
        cmdline: "quiet loglevel=1 panic=-1 reboot=t rdinit=/init 8250.nr_uarts=0".to_owned(),
        boot_protocol: BootProtocol::Auto,
        console: false,
        cid: 3,
        net: None,
        disks: Vec::new(),
    };
    hypervisor.build(spec, Box::new(|_| ())).unwrap()
}

async fn connect(vsock: &Vsock, port: u32) -> io::Result<VsockStream> {
    let mut connecting = vsock.connect(port);
    timeout(DEADLINE, poll_fn(|cx| connecting.poll(cx))).await.unwrap()
}

async fn read(stream: &mut VsockStream, buffer: &mut [u8]) -> io::Result<usize> {
    timeout(DEADLINE, poll_fn(|cx| stream.poll_read(cx, buffer))).await.unwrap()
}

async fn ask_health(stream: &mut VsockStream) -> String {
    let mut request = &b"GET /v1/health HTTP/1.1\r\nhost: agent\r\n\r\n"[..];
    while !request.is_empty() {
        let count = poll_fn(|cx| stream.poll_write(cx, request)).await.unwrap();
        request = &request[count..];
    }
    let mut answer = vec![0; 4096];
    let mut len = 0;
    while !answer[..len].ends_with(b"}") {
        let count = read(stream, &mut answer[len..]).await.unwrap();
        assert_ne!(count, 0, "the agent hung up");
        len += count;
    }
    String::from_utf8(answer[..len].to_vec()).unwrap()
}

#[test]
fn ports_refuse_at_once_and_two_hundred_connections_stand_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let vsock = machine.vsock();
    runtime.block_on(async {
        let mut listener = vsock.listen(HOST_PORT).unwrap();
        machine.resume();
        let home = timeout(DEADLINE, poll_fn(|cx| listener.poll_accept(cx))).await.unwrap();
        let _home = home.unwrap();

        // Refused by the guest's answer; a time-out would be a different error.
        let refused = connect(&vsock, 4242).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let all = join_all((0..CONNECTIONS).map(|_| connect(&vsock, AGENT_PORT))).await;
        let mut streams: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        let answers = join_all(streams.iter_mut().map(ask_health)).await;
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")), "{answers:?}");

        // The machine's end ends each of them, and every later attempt.
        machine.stop(DEADLINE).unwrap();
        for stream in &mut streams {
            let ended = read(stream, &mut [0]).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        assert!(connect(&vsock, AGENT_PORT).await.is_err());
    });
}
