//! virtio devices, and the entropy device as the simplest of them.
//!
//! A virtio device's section holds one field, `virtio`, whose codec is written by hand: the transport's state, registers, the
//! configuration space, queues, and then a description with nothing but optional parts. Embedded descriptions take part in
//! the look-ahead for subsections, so they are walked by the engine, as children.
//!
//! | transport | type |
//! |---|---|
//! | PCI | [`VirtioPci`] |
//! | MMIO | [`VirtioMmio`] |
//!
//! What is configured must agree on both ends and is set before loading: conventional PCI or PCI Express, the number of MSI-X
//! vectors.

mod device;
mod extension;
mod transport;

use vmstate_derive::VmState;

pub use device::{MAX_CONFIG, MAX_QUEUES, Virtio, Virtqueue};
pub use extension::{
    Broken, DeviceEndian, Disabled, Extension, ExtraState, Features64, PackedRing, PackedRings,
    QueueSizes, RingAddresses, Rings, Started,
};
pub use transport::{
    MmioExtra, MmioQueue, MmioState, PciExtra, PciModernState, PciQueue, Transport, VirtioMmio,
    VirtioPci,
};

/// The entropy device, section `virtio-rng`.
///
/// ```
/// use vmstate_devices::pci::PciDevice;
/// use vmstate_devices::virtio::{VirtioPci, VirtioRng};
///
/// let rng = VirtioRng::over(VirtioPci::new(PciDevice::express(), Some(2)));
/// assert_eq!(rng.virtio.queues.len(), 0);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio-rng", version = 1, minimum_version = 1)]
#[vmstate(bound())]
pub struct VirtioRng<T: Transport> {
    /// All there is to it.
    pub virtio: Virtio<T>,
}

impl<T: Transport> VirtioRng<T> {
    /// A device on this transport.
    #[must_use]
    pub fn over(transport: T) -> Self {
        Self {
            virtio: Virtio::over(transport),
        }
    }
}
