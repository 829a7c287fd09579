//! Building a machine: one straight list, in the order that KVM wants.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::bus::Bus;
use crate::vmm::device::SerialPort;
use crate::vmm::event_loop::{EventLoops, OnFault, Registration, Watched};
use crate::vmm::kvm::HostKvm;
use crate::vmm::layout::{GSI_FIRST, GSI_SERIAL, MMIO, MMIO_SLOT_LEN, SLOTS_MAX};
use crate::vmm::machine::{Ending, Machine};
use crate::vmm::vcpu::{Context, Counters, VcpuHandle, cpuid, regs};
use crate::vmm::virtio::VirtioDevice;
use crate::vmm::virtio::blk::Blk;
use crate::vmm::virtio::blk::pool::Pool;
use crate::vmm::virtio::mmio::{QUEUE_NOTIFY, Transport};
use crate::vmm::virtio::net::Net;
use crate::vmm::virtio::rng::Rng;
use crate::vmm::virtio::vsock::VsockDevice;
use crate::vmm::{DiskSpec, Error, Exit, NetSpec, OnExit, Spec, boot, host, lock, memory};

/// The MP table and the tests cover this many.
const VCPUS_MAX: u8 = 32;

/// The machine under construction.
struct Board<'a> {
    vm: &'a VmFd,
    loops: &'a Arc<EventLoops>,
    memory: &'a Arc<GuestMemoryMmap>,
    on_fault: OnFault,
    slots: Vec<Transport>,
    registrations: Vec<Registration>,
    cmdline: String,
}

/// Builds a machine with its vCPUs held.
///
/// # Errors
/// [`Error`]; what was made is dropped again.
pub fn build(
    kvm: &HostKvm,
    loops: &Arc<EventLoops>,
    disks: &Arc<Pool>,
    spec: Spec,
    on_exit: OnExit,
    built_at: Instant,
) -> Result<Machine, Error> {
    check(&spec)?;
    let memory = memory::allocate(&spec.label, spec.memory_mib, spec.huge_pages)?;
    let vm = kvm.create_vm()?;
    memory::register(&vm, &memory)?;
    vm.create_irq_chip().map_err(|errno| host("make the interrupt controllers", errno))?;

    let serial = Arc::new(SerialPort::new(irqfd(&vm, GSI_SERIAL)?));
    let (vsock_device, vsock) =
        VsockDevice::new(spec.cid).map_err(|error| host("make the vsock device", error))?;
    let ending = Arc::new(Ending {
        on_exit: Mutex::new(Some(on_exit)),
        vsock,
        serial: Arc::clone(&serial),
        vcpus: Mutex::new(Weak::new()),
    });
    let mut board = Board {
        vm: &vm,
        loops,
        memory: &memory,
        on_fault: fault_of(&ending),
        slots: Vec::new(),
        registrations: Vec::new(),
        cmdline: spec.cmdline.clone(),
    };
    board.attach(Arc::new(Mutex::new(vsock_device)))?;
    attach_devices(&mut board, disks, spec.net, spec.disks)?;
    let Board { slots, registrations, cmdline, .. } = board;

    let image = boot::Image {
        kernel: &spec.kernel,
        initramfs: spec.initramfs.as_ref(),
        cmdline: &cmdline,
        protocol: spec.boot_protocol,
        vcpus: spec.vcpus,
    };
    let entry = boot::load(&memory, &image)?;
    let counters = Arc::new(Counters::default());
    let bus = Arc::new(Bus::new(slots, spec.console.then_some(serial)));
    let make_context = || {
        let finish = Arc::clone(&ending);
        Context {
            bus: Arc::clone(&bus),
            counters: Arc::clone(&counters),
            built_at,
            finish: Arc::new(move |exit| finish.finish(exit)),
        }
    };
    let mut vcpus = Vec::with_capacity(usize::from(spec.vcpus));
    for id in 0..spec.vcpus {
        let vcpu = make_vcpu(kvm, &vm, id, spec.vcpus)?;
        if id == 0 {
            regs::set_boot(&vcpu, &memory, entry)?;
        }
        vcpus.push(VcpuHandle::spawn(vcpu, thread_name(&spec.label, id), make_context())?);
    }
    let vcpus = Arc::new(Mutex::new(vcpus));
    *lock(&ending.vcpus) = Arc::downgrade(&vcpus);
    Ok(Machine { vcpus, registrations, ending, counters, _vm: vm, _memory: memory })
}

fn make_vcpu(kvm: &HostKvm, vm: &VmFd, id: u8, count: u8) -> Result<VcpuFd, Error> {
    let vcpu = vm.create_vcpu(u64::from(id)).map_err(|errno| host("make a vCPU", errno))?;
    // CPUID first: since Linux 6.13 MSRs may only be set after it.
    vcpu.set_cpuid2(&cpuid::for_vcpu(&kvm.supported_cpuid, id, count))
        .map_err(|errno| host("set CPUID", errno))?;
    regs::set_common(&vcpu)?;
    Ok(vcpu)
}

fn check(spec: &Spec) -> Result<(), Error> {
    if spec.vcpus < 1 || VCPUS_MAX < spec.vcpus {
        return Err(Error::Image(format!("1 to {VCPUS_MAX} vCPUs, not {}", spec.vcpus)));
    }
    Ok(())
}

/// `v<label>-c<id>`, cut to the 15 bytes that Linux keeps of a thread's name.
fn thread_name(label: &str, id: u8) -> String {
    let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("v{label}-c{id}")
}

fn fault_of(ending: &Arc<Ending>) -> OnFault {
    let ending = Arc::downgrade(ending);
    Arc::new(move |reason| {
        if let Some(ending) = ending.upgrade() {
            ending.finish(Exit::Fault(reason));
        }
    })
}

fn attach_devices(
    board: &mut Board<'_>,
    pool: &Arc<Pool>,
    net: Option<NetSpec>,
    disks: Vec<DiskSpec>,
) -> Result<(), Error> {
    let rng = Rng::new().map_err(|error| host("make the entropy device", error))?;
    board.attach(Arc::new(Mutex::new(rng)))?;
    if let Some(NetSpec { tap, mac }) = net {
        let net = Net::new(tap, mac).map_err(|error| host("set up the network card", error))?;
        board.attach(Arc::new(Mutex::new(net)))?;
    }
    for DiskSpec { file, readonly, serial } in disks {
        let disk = Blk::new(file, readonly, &serial, pool);
        let disk = disk.map_err(|error| host("set up a disk", error))?;
        board.attach(Arc::new(Mutex::new(disk)))?;
    }
    Ok(())
}

fn eventfd() -> Result<EventFd, Error> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .map_err(|error| host("make an eventfd", error))
}

/// An eventfd whose write raises interrupt `gsi` in the kernel.
fn irqfd(vm: &VmFd, gsi: u32) -> Result<EventFd, Error> {
    let event = eventfd()?;
    vm.register_irqfd(&event, gsi).map_err(|errno| host("register an irqfd", errno))?;
    Ok(event)
}

impl Board<'_> {
    /// Gives a device the next slot: registers, interrupt, notifications, loop, command line.
    fn attach(&mut self, device: Arc<Mutex<dyn VirtioDevice>>) -> Result<(), Error> {
        let index = self.slots.len();
        if SLOTS_MAX <= index {
            return Err(Error::Image(format!("at most {SLOTS_MAX} devices")));
        }
        let slot = u32::try_from(index).map_err(|_| Error::Image("too many devices".to_owned()))?;
        let gsi = GSI_FIRST + slot;
        let base = MMIO + u64::from(slot) * MMIO_SLOT_LEN;
        let irq = Arc::new(irqfd(self.vm, gsi)?);
        let queue_count = lock(&device).queue_sizes().len();
        let mut queue_events = Vec::with_capacity(queue_count);
        for queue in 0..queue_count {
            let event = eventfd()?;
            let datamatch = u32::try_from(queue).unwrap_or(u32::MAX);
            let notify = IoEventAddress::Mmio(base + QUEUE_NOTIFY);
            self.vm
                .register_ioevent(&event, &notify, datamatch)
                .map_err(|errno| host("register an ioeventfd", errno))?;
            queue_events.push(Arc::new(event));
        }
        let status = Arc::new(AtomicU32::new(0));
        let transport = Transport::new(
            Arc::clone(&device),
            Arc::clone(self.memory),
            irq,
            queue_events.clone(),
            Arc::clone(&status),
        )
        .map_err(|error| host("make a device's queues", std::io::Error::other(error)))?;
        let interrupt = transport.interrupt();
        let on_fault = Arc::clone(&self.on_fault);
        let watched = Watched::new(device, queue_events, status, interrupt, on_fault);
        self.registrations.push(self.loops.add(watched)?);
        self.slots.push(transport);
        self.cmdline.push_str(&format!(" virtio_mmio.device=4K@{base:#x}:{gsi}"));
        Ok(())
    }
}
