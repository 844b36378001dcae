//! The controller itself.

use std::collections::VecDeque;

use vmstate_derive::VmState;
use vmstate_desc::Reason;

use super::namespace::{Atomic, Namespace};
use super::queue::{AsyncEvent, CompletionQueue, Request, SubmissionQueue};
use crate::array::Array;
use crate::pci::{Msix, PciDevice};

/// Most slots for queues that a controller can have.
pub const MAX_SLOTS: u32 = 65_536;

/// The controller, section `nvme`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme", version = 1, minimum_version = 1)]
pub struct Nvme {
    /// The PCI device.
    #[vmstate(name = "parent_obj")]
    pub pci: PciDevice,
    /// Its interrupts.
    #[vmstate(name = "parent_obj")]
    pub msix: Msix,
    /// The registers in memory.
    pub bar: Bar,
    /// Whether the guest has created I/O queues.
    pub qs_created: bool,
    /// Bytes of a page.
    pub page_size: u32,
    /// The same as a power of two.
    pub page_bits: u16,
    /// Entries of a list of pages.
    pub max_prp_ents: u16,
    /// Most entries of a queue, less one.
    pub max_q_ents: u32,
    /// Length of [`Nvme::aer_reqs`].
    pub outstanding_aers: u8,
    /// Interrupt lines that queues pull, a bit per vector.
    pub irq_status: u32,
    /// Completion queues with something in them.
    pub cq_pending: i32,
    /// Timestamp that the guest has set, in ms since 1970.
    pub host_timestamp: u64,
    /// When it was set, in ms of the guest's clock.
    pub timestamp_set_qemu_clock_ms: u64,
    /// When the controller started, in ms of the guest's clock.
    pub starttime_ms: u64,
    /// Temperature in kelvins.
    pub temperature: u16,
    /// Health warnings.
    pub smart_critical_warning: u8,
    /// Configured number of interrupt vectors.
    pub conf_msix_qsize: u32,
    /// Configured number of I/O queue pairs. With the admin queues it is the number of slots.
    #[vmstate(validate = Self::check_pairs)]
    pub conf_ioqpairs: u32,
    /// Guest-physical address of the shadow doorbells.
    pub dbbuf_dbs: u64,
    /// Guest-physical address of the event indices.
    pub dbbuf_eis: u64,
    /// Whether the guest uses shadow doorbells.
    pub dbbuf_enabled: bool,
    /// Types of events that are not reported at present.
    pub aer_mask: u8,
    /// Requests of the guest to be told of events.
    #[vmstate(pointers, count = outstanding_aers, max = 255)]
    pub aer_reqs: Vec<Option<Box<Request>>>,
    /// Events that the guest has not been told of.
    #[vmstate(qtailq, since = 1)]
    pub aer_queue: VecDeque<AsyncEvent>,
    /// How many these are.
    pub aer_queued: i32,
    /// The namespace.
    pub namespace: Namespace,
    /// Slots for queues of each kind; not in the stream.
    #[vmstate(skip = "configured")]
    pub slots: u32,
    /// Submission queues by number; 0 is the admin queue.
    #[vmstate(name = "sq", pointers, count = slots, max = MAX_SLOTS)]
    pub submission: Vec<Option<Box<SubmissionQueue>>>,
    /// Completion queues by number; 0 is the admin queue.
    #[vmstate(name = "cq", pointers, count = slots, max = MAX_SLOTS)]
    pub completion: Vec<Option<Box<CompletionQueue>>>,
    /// Feature: temperature that is too high, in kelvins.
    #[vmstate(name = "features.temp_thresh_hi")]
    pub temp_thresh_hi: u16,
    /// Feature: temperature that is too low, in kelvins.
    #[vmstate(name = "features.temp_thresh_low")]
    pub temp_thresh_low: u16,
    /// Feature: events that the guest wants to be told of.
    #[vmstate(name = "features.async_config")]
    pub async_config: u32,
    /// Feature: what the host supports.
    #[vmstate(name = "features.hbs")]
    pub host_behavior: HostBehavior,
    /// Feature: writes are not atomic across power failures.
    pub dn: u32,
    /// What is written atomically.
    pub atomic: Atomic,
}

impl Nvme {
    /// A controller with so many I/O queue pairs and interrupt vectors, on PCI Express.
    #[must_use]
    pub fn new(io_queue_pairs: u32, msix_vectors: u16) -> Self {
        let slots = io_queue_pairs.saturating_add(1);
        let empty = slots.min(MAX_SLOTS) as usize;
        Self {
            pci: PciDevice::express(),
            msix: Msix::new(msix_vectors),
            conf_ioqpairs: io_queue_pairs,
            conf_msix_qsize: msix_vectors.into(),
            slots,
            submission: (0..empty).map(|_| None).collect(),
            completion: (0..empty).map(|_| None).collect(),
            ..Self::default()
        }
    }

    fn check_pairs(pairs: &u32, nvme: &Self) -> Result<(), Reason> {
        let here = nvme.slots.saturating_sub(1);
        if *pairs != here {
            return Err(format!("{pairs} I/O queue pairs, but the destination has {here}").into());
        }
        Ok(())
    }
}

/// The registers in memory, `nvme-bar`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-bar", version = 1, minimum_version = 1)]
pub struct Bar {
    /// Capabilities.
    pub cap: u64,
    /// Version.
    pub vs: u32,
    /// Interrupt mask set.
    pub intms: u32,
    /// Interrupt mask clear.
    pub intmc: u32,
    /// Configuration: bit 0 enables the controller.
    pub cc: u32,
    /// Reserved.
    pub rsvd24: [u8; 4],
    /// Status: bit 0 says that the controller is ready.
    pub csts: u32,
    /// Subsystem reset.
    pub nssr: u32,
    /// Sizes of the admin queues.
    pub aqa: u32,
    /// Guest-physical address of the admin submission queue.
    pub asq: u64,
    /// Guest-physical address of the admin completion queue.
    pub acq: u64,
    /// Location of the controller's memory buffer.
    pub cmbloc: u32,
    /// Size of the controller's memory buffer.
    pub cmbsz: u32,
    /// Boot partition information.
    pub bpinfo: u32,
    /// Boot partition read select.
    pub bprsel: u32,
    /// Guest-physical address of the boot partition's memory buffer.
    pub bpmbl: u64,
    /// Control of the controller's memory buffer.
    pub cmbmsc: u64,
    /// Status of the controller's memory buffer.
    pub cmbsts: u32,
    /// Reserved.
    pub rsvd92: Array<u8, 3492>,
    /// Capabilities of the persistent memory region.
    pub pmrcap: u32,
    /// Control of the persistent memory region.
    pub pmrctl: u32,
    /// Status of the persistent memory region.
    pub pmrsts: u32,
    /// Size of the persistent memory region's elasticity buffer.
    pub pmrebs: u32,
    /// Sustained write throughput of the persistent memory region.
    pub pmrswtp: u32,
    /// Address of the persistent memory region, lower half.
    pub pmrmscl: u32,
    /// Address of the persistent memory region, upper half.
    pub pmrmscu: u32,
    /// What fills the page.
    pub css: Array<u8, 484>,
}

/// What the host supports, `nvme-hbs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-hbs", version = 1, minimum_version = 1)]
pub struct HostBehavior {
    /// Advanced command retry.
    pub acre: u8,
    /// Extended telemetry data area.
    pub etdas: u8,
    /// Extended formats.
    pub lbafee: u8,
    /// Reserved.
    pub rsvd3: u8,
    /// Formats of copy descriptors.
    pub cdfe: u16,
    /// Reserved.
    pub rsvd6: Array<u8, 506>,
}
