//! What the guest looks like from inside: counters, listening ports, the clock. From /proc alone.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};
use volant_protocol::{ClockTime, GuestMetrics, ListeningPort};

/// Microseconds of one tick of /proc/stat (USER_HZ is 100 on every architecture of ours).
const TICK_US: u64 = 10_000;
/// States of /proc/net/tcp and /proc/net/udp (linux/net/tcp_states.h).
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";
/// Ports shown at most.
const PORTS_MAX: usize = 4096;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Counters; what cannot be read is 0.
pub fn metrics() -> GuestMetrics {
    let stat = read("/proc/stat");
    let memory = read("/proc/meminfo");
    let kib = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
    };
    let (cpu_busy_us, cpu_idle_us) = cpu_times(&stat);
    let online = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let (net_received, net_sent) = traffic(&read("/proc/net/dev"), "eth0");
    let (disk_total, disk_used) = disk();
    GuestMetrics {
        cpus: u32::try_from(stat.lines().filter(online).count()).unwrap_or(u32::MAX),
        cpu_busy_us,
        cpu_idle_us,
        load_1m: first(&read("/proc/loadavg")).and_then(|word| word.parse().ok()).unwrap_or(0.0),
        memory_total: kib("MemTotal:") * 1024,
        memory_available: kib("MemAvailable:") * 1024,
        memory_cached: kib("Cached:") * 1024,
        disk_total,
        disk_used,
        processes: u32::try_from(pids().count()).unwrap_or(u32::MAX),
        net_received,
        net_sent,
        unix_ms: unix_ns() / 1_000_000,
    }
}

fn first(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Busy and idle time of the first line of /proc/stat: user nice system idle iowait irq softirq
/// steal (proc(5)).
fn cpu_times(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).take(8).collect();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let all: u64 = ticks.iter().sum();
    ((all - idle) * TICK_US, idle * TICK_US)
}

/// Bytes received and sent by an interface, from /proc/net/dev.
fn traffic(dev: &str, interface: &str) -> (u64, u64) {
    let line = dev.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let numbers: Vec<u64> =
        line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers.first().copied().unwrap_or(0), numbers.get(8).copied().unwrap_or(0))
}

fn disk() -> (u64, u64) {
    let Ok(disk) = rustix::fs::statvfs("/") else { return (0, 0) };
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    (bytes(disk.f_blocks), bytes(disk.f_blocks.saturating_sub(disk.f_bfree)))
}

/// Ids of all processes.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Who listens where, by port. `owners` costs a look at every process.
pub fn ports() -> Vec<ListeningPort> {
    let mut found = BTreeSet::new();
    let mut inodes = HashMap::new();
    let tables = [
        ("tcp", "/proc/net/tcp", TCP_LISTEN),
        ("tcp", "/proc/net/tcp6", TCP_LISTEN),
        ("udp", "/proc/net/udp", UDP_UNCONNECTED),
        ("udp", "/proc/net/udp6", UDP_UNCONNECTED),
    ];
    for (protocol, path, state) in tables {
        for (address, port, inode) in sockets(&read(path), state) {
            let (protocol, address) = (protocol.to_owned(), address.to_string());
            let entry = ListeningPort { port, protocol, address, pid: None, program: None };
            if found.len() < PORTS_MAX {
                inodes.insert(inode, entry.clone());
                found.insert(entry);
            }
        }
    }
    for (pid, inode) in owners(&inodes) {
        if let Some(mut entry) = inodes.remove(&inode) {
            found.remove(&entry);
            entry.pid = Some(pid);
            let program = read(&format!("/proc/{pid}/comm"));
            entry.program = Some(program.trim().to_owned());
            found.insert(entry);
        }
    }
    found.into_iter().collect()
}

/// Address, port and inode of the sockets in a state, from /proc/net/tcp and the like.
fn sockets(table: &str, state: &str) -> Vec<(IpAddr, u16, u64)> {
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, its_state, _, _, _, _, _, inode, ..] = words[..] else { return None };
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (its_state == state && port != 0).then_some(())?;
        Some((address_of(address)?, port, inode.parse().ok()?))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

/// Hexadecimal words of four bytes, each in the machine's order.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = bytes.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Processes that hold sockets of these inodes.
fn owners(inodes: &HashMap<u64, ListeningPort>) -> Vec<(i32, u64)> {
    let mut owners = Vec::new();
    for pid in pids() {
        let Ok(links) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for link in links.flatten() {
            let Ok(target) = fs::read_link(link.path()) else { continue };
            let inode = target.to_str().and_then(|target| {
                target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            });
            if let Some(inode) = inode
                && inodes.contains_key(&inode)
            {
                owners.push((pid, inode));
            }
        }
    }
    owners
}

/// Sets the clock; returns what it was.
///
/// # Errors
/// The kernel's.
pub fn set_clock(time: ClockTime) -> io::Result<ClockTime> {
    let before = ClockTime { unix_time_ns: unix_ns() };
    let seconds = i64::try_from(time.unix_time_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i64::try_from(time.unix_time_ns % 1_000_000_000).unwrap_or(0);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: nanos })?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "cpu  10 2 8 100 5 1 1 0 7 0\ncpu0 10 2 8 100 5 1 1 0 7 0\n";
        assert_eq!(cpu_times(stat), (220_000, 1_050_000));
        assert_eq!(cpu_times(""), (0, 0));
        let dev = "Inter-|\n face |\n  eth0: 100 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n eth01: 1 1\n";
        assert_eq!(traffic(dev, "eth0"), (100, 300));
        assert_eq!(traffic(dev, "eth1"), (0, 0));
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "  sl  local_address rem_address   st ...\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1\n\
            1: 0100007F:1F91 0100007F:0001 01 00000000:00000000 00:00000000 00000000 0 0 4243 1\n\
            garbage\n";
        let found = sockets(table, TCP_LISTEN);
        assert_eq!(found, [(IpAddr::from([127, 0, 0, 1]), 8080, 4242)]);
        let any = address_of("00000000000000000000000000000000").unwrap();
        assert_eq!(any, IpAddr::from(Ipv6Addr::UNSPECIFIED));
        assert_eq!(address_of("0100"), None);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = ports().into_iter().find(|shown| shown.port == port).unwrap();
        assert_eq!(shown.pid, i32::try_from(std::process::id()).ok());
        assert_eq!((shown.address.as_str(), shown.protocol.as_str()), ("127.0.0.1", "tcp"));
    }
}
