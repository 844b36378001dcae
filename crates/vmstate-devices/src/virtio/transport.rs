//! Ways in which a guest reaches a virtio device.

use std::fmt;

use vmstate_derive::VmState;
use vmstate_desc::{Error, LoadField, SaveField, VmState};

use super::device::{MAX_QUEUES, Virtqueue};
use super::extension::all_queues;
use crate::codec::{get, put};
use crate::pci::{Msix, PciDevice};

/// The transport's part of a device's state.
pub trait Transport: Default + Clone + PartialEq + Eq + fmt::Debug {
    /// What it adds in the subsection `virtio/extra_state`.
    type Extra: VmState + Default + Clone + PartialEq + Eq + fmt::Debug;

    /// Queues say how their used ring is aligned.
    const HAS_ALIGNMENT: bool;

    /// Saves what stands first.
    ///
    /// # Errors
    /// What `sink` returns.
    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// Loads what stands first.
    ///
    /// # Errors
    /// What `source` returns, and refusals.
    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error>;

    /// Saves what the transport has for each queue.
    ///
    /// # Errors
    /// What `sink` returns.
    fn save_queue(&self, queue: &Virtqueue, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// Loads what the transport has for each queue.
    ///
    /// # Errors
    /// What `source` returns.
    fn load_queue(&self, queue: &mut Virtqueue, source: &mut dyn LoadField) -> Result<(), Error>;
}

/// A PCI device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtioPci {
    /// The PCI device.
    pub pci: PciDevice,
    /// Its MSI-X vectors, if it has any.
    pub msix: Option<Msix>,
    /// Vector for changes of the configuration; 0xffff is none. Travels with MSI-X only.
    pub config_vector: u16,
}

impl VirtioPci {
    /// A device with so many MSI-X vectors, if any.
    #[must_use]
    pub fn new(pci: PciDevice, msix_vectors: Option<u16>) -> Self {
        Self {
            pci,
            msix: msix_vectors.map(Msix::new),
            config_vector: u16::MAX,
        }
    }
}

impl Transport for VirtioPci {
    type Extra = PciExtra;

    const HAS_ALIGNMENT: bool = false;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.child(&self.pci)?;
        match &self.msix {
            Some(msix) => {
                msix.save(sink)?;
                put(sink, self.config_vector)
            }
            None => Ok(()),
        }
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        source.child(&mut self.pci).map_err(|e| e.in_field("pci"))?;
        match &mut self.msix {
            Some(msix) => {
                msix.load(source).map_err(|e| e.in_field("msix"))?;
                self.config_vector = get(source, "config_vector")?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn save_queue(&self, queue: &Virtqueue, sink: &mut dyn SaveField) -> Result<(), Error> {
        match self.msix {
            Some(_) => put(sink, queue.vector),
            None => Ok(()),
        }
    }

    fn load_queue(&self, queue: &mut Virtqueue, source: &mut dyn LoadField) -> Result<(), Error> {
        if self.msix.is_some() {
            queue.vector = get(source, "vector")?;
        }
        Ok(())
    }
}

/// What PCI adds, `virtio_pci`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio_pci", version = 1, minimum_version = 1)]
pub struct PciExtra {
    /// Registers of version 1 of virtio; legacy devices have none.
    #[vmstate(subsection)]
    pub modern: Option<PciModernState>,
}

/// Subsection `virtio_pci/modern_state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio_pci/modern_state", version = 1, minimum_version = 1)]
pub struct PciModernState {
    /// Which half of the device's features the guest reads.
    #[vmstate(name = "dfselect")]
    pub device_features_half: u32,
    /// Which half of its own features the guest writes.
    #[vmstate(name = "gfselect")]
    pub guest_features_half: u32,
    /// Features that the guest has written, lower half first.
    pub guest_features: [u32; 2],
    /// Registers of each queue that there could be: 1024.
    #[vmstate(name = "vqs", count_with = all_queues, max = MAX_QUEUES)]
    pub queues: Vec<PciQueue>,
}

/// Registers of a queue; addresses have their lower half first.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(
    name = "virtio_pci/modern_queue_state",
    version = 1,
    minimum_version = 1
)]
pub struct PciQueue {
    /// Entries.
    #[vmstate(name = "num")]
    pub size: u16,
    #[vmstate(unused = 1)]
    #[doc(hidden)]
    pub _enabled_in_16_bits: (),
    /// Whether the guest has switched the queue on.
    pub enabled: bool,
    /// Guest-physical address of the descriptors.
    #[vmstate(name = "desc")]
    pub descriptors: [u32; 2],
    /// Guest-physical address of the available ring.
    #[vmstate(name = "avail")]
    pub available: [u32; 2],
    /// Guest-physical address of the used ring.
    pub used: [u32; 2],
}

/// Registers in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Which half of the device's features the guest reads.
    pub device_features_half: u32,
    /// Which half of its own features the guest writes.
    pub guest_features_half: u32,
    /// Size of a guest page, as a power of two, for legacy queues.
    pub guest_page_shift: u32,
}

impl Transport for VirtioMmio {
    type Extra = MmioExtra;

    const HAS_ALIGNMENT: bool = true;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        put(sink, self.device_features_half)?;
        put(sink, self.guest_features_half)?;
        put(sink, self.guest_page_shift)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        self.device_features_half = get(source, "device_features_half")?;
        self.guest_features_half = get(source, "guest_features_half")?;
        self.guest_page_shift = get(source, "guest_page_shift")?;
        Ok(())
    }

    fn save_queue(&self, _queue: &Virtqueue, _sink: &mut dyn SaveField) -> Result<(), Error> {
        Ok(())
    }

    fn load_queue(&self, _queue: &mut Virtqueue, _source: &mut dyn LoadField) -> Result<(), Error> {
        Ok(())
    }
}

/// What MMIO adds, `virtio_mmio`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio_mmio", version = 1, minimum_version = 1)]
pub struct MmioExtra {
    /// Registers of version 1 of virtio.
    #[vmstate(subsection)]
    pub modern: Option<MmioState>,
}

/// Subsection `virtio_mmio/state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio_mmio/state", version = 1, minimum_version = 1)]
pub struct MmioState {
    /// Features that the guest has written, lower half first.
    pub guest_features: [u32; 2],
    /// Registers of each queue that there could be: 1024.
    #[vmstate(name = "vqs", count_with = all_queues, max = MAX_QUEUES)]
    pub queues: Vec<MmioQueue>,
}

/// Registers of a queue; addresses have their lower half first.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio_mmio/queue_state", version = 1, minimum_version = 1)]
pub struct MmioQueue {
    /// Entries.
    #[vmstate(name = "num")]
    pub size: u16,
    /// Whether the guest has switched the queue on.
    pub enabled: bool,
    /// Guest-physical address of the descriptors.
    #[vmstate(name = "desc")]
    pub descriptors: [u32; 2],
    /// Guest-physical address of the available ring.
    #[vmstate(name = "avail")]
    pub available: [u32; 2],
    /// Guest-physical address of the used ring.
    pub used: [u32; 2],
}
