//! What the queue type lacks: several used buffers published as one.

use virtio_bindings::virtio_ring::{vring_used, vring_used_elem};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Puts `used` (head index, bytes written) into the used ring such that the driver sees all of them
/// or none (virtio 1.3, 2.7.8.2 and 5.1.6.4): the index is written once, last. The heads must come
/// from chains of this queue. For more than one, the caller signals without asking the queue, whose
/// count of what was added then misses some.
///
/// # Errors
/// The ring lies outside of guest memory.
pub fn add_used_together(
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    used: &[(u16, u32)],
) -> Result<(), virtio_queue::Error> {
    let Some(((last, last_len), first)) = used.split_last() else { return Ok(()) };
    for (head, len) in first {
        let slot = queue.next_used() % queue.size();
        let offset = size_of::<vring_used>() + usize::from(slot) * size_of::<vring_used_elem>();
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        let address = queue.used_ring().checked_add(offset);
        let address = address.ok_or(virtio_queue::Error::AddressOverflow)?;
        let element = [u32::from(*head).to_le_bytes(), len.to_le_bytes()].concat();
        memory
            .write_slice(&element, GuestAddress(address))
            .map_err(virtio_queue::Error::GuestMemory)?;
        queue.set_next_used(queue.next_used().wrapping_add(1));
    }
    queue.add_used(memory, *last, *last_len)
}
