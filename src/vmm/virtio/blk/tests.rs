//! The device on real guest memory and a real file, driven as a driver would, well and badly.

use std::io::Write;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;

const SECTORS: u64 = 8;
const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const STATUS: u64 = 0x30_0000;
/// VIRTQ_DESC_F_NEXT and VIRTQ_DESC_F_WRITE (virtio 1.3, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;

struct Bench {
    memory: Arc<GuestMemoryMmap>,
    blk: Blk,
    file: File,
}

fn bench(readonly: bool) -> Bench {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..SECTORS {
        file.write_all(&[u8::try_from(sector).unwrap(); 512]).unwrap();
    }
    let disk = file.try_clone().unwrap();
    let blk = Blk::new(disk, readonly, "a-serial", &Arc::new(Pool::default())).unwrap();
    Bench { memory: Arc::new(memory), blk, file }
}

/// The data part of a request: address, bytes, flags.
type Segment = (u64, u32, u16);

impl Bench {
    /// Puts one chain before a fresh queue and runs it. The device's verdict; bytes used, if it
    /// answered.
    fn run(
        &mut self,
        kind: u32,
        sector: u64,
        data: &[Segment],
        status: Segment,
    ) -> Result<Option<u32>, DeviceError> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        let mut parts = vec![(HEADER, 16, 0)];
        parts.extend(data);
        parts.push(status);
        self.chain(&parts)
    }

    fn chain(&mut self, parts: &[Segment]) -> Result<Option<u32>, DeviceError> {
        let memory = Arc::clone(&self.memory);
        memory.write_slice(&[0xff], GuestAddress(STATUS)).unwrap();
        memory.write_slice(&[0; 0x4000], GuestAddress(0)).unwrap();
        let ring = MockSplitQueue::new(&*memory, 128);
        let descriptors: Vec<RawDescriptor> = (1u16..)
            .zip(parts)
            .map(|(next, (address, len, flags))| {
                let more = usize::from(next) < parts.len();
                let flags = if more { flags | NEXT } else { *flags };
                RawDescriptor::from(Descriptor::new(*address, *len, flags, next))
            })
            .collect();
        ring.build_desc_chain(&descriptors).unwrap();
        let irqfd = Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        self.blk.reset();
        self.blk.activate(Activation {
            memory: Arc::clone(&memory),
            queues: vec![ring.create_queue().unwrap()],
            interrupt: Interrupt::new(Arc::new(AtomicU32::new(0)), irqfd),
            features: self.blk.features(),
        })?;
        self.blk.queue_ready(0)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while 0 < self.blk.engine.in_flight() {
            self.blk.source_ready(0)?;
            assert!(Instant::now() < deadline, "no completion");
            std::thread::yield_now();
        }
        let used = ring.used();
        Ok((used.idx().load() == 1).then(|| used.ring().ref_at(0).unwrap().load().len()))
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn status(&self) -> u8 {
        self.bytes(STATUS, 1)[0]
    }
}

const READ: u32 = 0;
const STORE: u32 = 1;
const FLUSH: u32 = 4;
const ID: u32 = 8;
const STATUS_PART: Segment = (STATUS, 1, WRITE);

#[test]
fn sectors_are_read_and_written() {
    let mut bench = bench(false);
    let used = bench.run(READ, 3, &[(DATA, 1024, WRITE)], STATUS_PART).unwrap();
    assert_eq!((used, bench.status()), (Some(1025), 0));
    assert_eq!(bench.bytes(DATA, 1024), [[3; 512], [4; 512]].concat());

    bench.memory.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
    let used = bench.run(STORE, 7, &[(DATA, 512, 0)], STATUS_PART).unwrap();
    assert_eq!((used, bench.status()), (Some(1), 0));
    assert_eq!(bench.run(FLUSH, 0, &[], STATUS_PART).unwrap(), Some(1));
    let mut last = [0; 512];
    std::os::unix::fs::FileExt::read_exact_at(&bench.file, &mut last, 7 * 512).unwrap();
    assert_eq!(last, [9; 512]);

    bench.run(ID, 0, &[(DATA, 20, WRITE)], STATUS_PART).unwrap();
    assert_eq!(bench.bytes(DATA, 20), b"a-serial\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn what_the_disk_does_not_have_is_an_error_to_the_guest_alone() {
    let mut disk = bench(false);
    let part = (DATA, 512, WRITE);
    for (kind, sector, data, code) in [
        (READ, 8, part, 1),
        (READ, u64::MAX, part, 1),
        (READ, u64::MAX / 512, part, 1),
        (READ, 0, (DATA, 100, WRITE), 1),
        (STORE, 7, (DATA, 1024, 0), 1),
        (STORE, 0, (DATA, 511, 0), 1),
        (77, 0, part, 2),
    ] {
        let used = disk.run(kind, sector, &[data], STATUS_PART).unwrap();
        assert!(used.is_some(), "{kind} at {sector} was not answered");
        assert_eq!(disk.status(), code, "{kind} at {sector} with {data:?}");
    }
    let mut readonly = bench(true);
    readonly.run(STORE, 0, &[(DATA, 512, 0)], STATUS_PART).unwrap();
    assert_eq!(readonly.status(), 1);
    assert_ne!(readonly.blk.features() & 1 << VIRTIO_BLK_F_RO, 0);
}

#[test]
fn a_chain_that_cannot_be_answered_stops_the_device() {
    let mut bench = bench(false);
    assert!(bench.run(READ, 0, &[], (STATUS, 1, 0)).is_err(), "no writable byte");
    assert!(bench.run(READ, 0, &[(1 << 40, 512, WRITE)], STATUS_PART).is_err(), "no such memory");
    assert!(bench.run(READ, 0, &[(u64::MAX, 512, WRITE)], STATUS_PART).is_err(), "wraps around");
    // And the next driver finds it working.
    assert!(bench.run(READ, 0, &[(DATA, 512, WRITE)], STATUS_PART).unwrap().is_some());
}

#[test]
fn a_file_of_half_sectors_ends_with_its_last_whole_one() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1500).unwrap();
    let blk = Blk::new(file, true, "", &Arc::new(Pool::default())).unwrap();
    let mut capacity = [0; 8];
    blk.read_config(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_the_chain_nothing_panics(
        header: [u8; 16],
        parts in prop::collection::vec((0u64..6 << 20, 0u32..1 << 23, 0u16..8), 1..8),
    ) {
        let mut bench = bench(false);
        bench.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        let mut chain = vec![(HEADER, 16, 0)];
        chain.extend(parts);
        let _ = bench.chain(&chain);
        prop_assert!(bench.file.metadata().unwrap().len() == SECTORS * 512);
    }
}
