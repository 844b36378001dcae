//! The description at the end of every virtio device's state: nothing but optional parts.

use vmstate_derive::VmState;
use vmstate_desc::{Error, LoadField, SaveField, VmState};

use super::device::MAX_QUEUES;

/// Parts that a release, a feature or a machine type added, `virtio`.
///
/// What came is what is written again.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio", version = 1, minimum_version = 1)]
#[vmstate(bound(X: VmState + Default))]
pub struct Extension<X> {
    /// The guest's byte order, if it is not the usual one.
    #[vmstate(subsection)]
    pub endian: Option<DeviceEndian>,
    /// All 64 bits of the features.
    #[vmstate(subsection)]
    pub features: Option<Features64>,
    /// Where the parts of each queue are, since version 1 of virtio.
    #[vmstate(subsection)]
    pub rings: Option<Rings>,
    /// Default sizes of the queues, if a queue has another.
    #[vmstate(subsection)]
    pub sizes: Option<QueueSizes>,
    /// The device has given up.
    #[vmstate(subsection)]
    pub broken: Option<Broken>,
    /// What the transport adds.
    #[vmstate(subsection)]
    pub extra: Option<ExtraState<X>>,
    /// The guest's driver runs.
    #[vmstate(subsection)]
    pub started: Option<Started>,
    /// Indices of packed rings.
    #[vmstate(subsection)]
    pub packed: Option<PackedRings>,
    /// The device is switched off.
    #[vmstate(subsection)]
    pub disabled: Option<Disabled>,
}

/// The length of all arrays of queues: they hold all that there could be.
pub(super) const fn all_queues<T>(_: &T) -> u32 {
    MAX_QUEUES
}

/// Subsection `virtio/device_endian`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/device_endian", version = 1, minimum_version = 1)]
pub struct DeviceEndian {
    /// 1 little, 2 big.
    #[vmstate(name = "device_endian")]
    pub order: u8,
}

/// Subsection `virtio/64bit_features`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/64bit_features", version = 1, minimum_version = 1)]
pub struct Features64 {
    /// Features that the guest has accepted.
    #[vmstate(name = "guest_features")]
    pub guest: u64,
}

/// Subsection `virtio/virtqueues`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/virtqueues", version = 1, minimum_version = 1)]
pub struct Rings {
    /// One for each queue that there could be: 1024.
    #[vmstate(name = "vq", count_with = all_queues, max = MAX_QUEUES)]
    pub rings: Vec<RingAddresses>,
}

/// Where the rings of a queue are.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtqueue_state", version = 1, minimum_version = 1)]
pub struct RingAddresses {
    /// Guest-physical address of what the guest offers.
    #[vmstate(name = "vring.avail")]
    pub available: u64,
    /// Guest-physical address of what the device has used.
    #[vmstate(name = "vring.used")]
    pub used: u64,
}

/// Subsection `virtio/ringsize`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/ringsize", version = 1, minimum_version = 1)]
pub struct QueueSizes {
    /// Default number of entries of each queue that there could be: 1024.
    #[vmstate(name = "vq", count_with = all_queues, max = MAX_QUEUES)]
    pub defaults: Vec<u32>,
}

/// Subsection `virtio/broken`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/broken", version = 1, minimum_version = 1)]
pub struct Broken {
    /// Whether the device has given up.
    pub broken: bool,
}

/// Subsection `virtio/extra_state`: a description of the transport's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/extra_state", version = 1, minimum_version = 1)]
#[vmstate(bound(X: VmState + Default))]
pub struct ExtraState<X> {
    /// What the transport adds.
    #[vmstate(
        name = "extra_state",
        custom(name = "virtqueue_extra_state", save = Self::save, load = Self::load)
    )]
    pub state: X,
}

impl<X: VmState> ExtraState<X> {
    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.child(&self.state)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        source.child(&mut self.state)
    }
}

/// Subsection `virtio/started`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/started", version = 1, minimum_version = 1)]
pub struct Started {
    /// Whether the guest's driver runs.
    pub started: bool,
}

/// Subsection `virtio/packed_virtqueues`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/packed_virtqueues", version = 1, minimum_version = 1)]
pub struct PackedRings {
    /// One for each queue that there could be: 1024.
    #[vmstate(name = "vq", count_with = all_queues, max = MAX_QUEUES)]
    pub rings: Vec<PackedRing>,
}

/// Indices of a packed ring.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "packed_virtqueue_state", version = 1, minimum_version = 1)]
pub struct PackedRing {
    /// Entry that the device takes next.
    #[vmstate(name = "last_avail_idx")]
    pub last_available: u16,
    /// The wrap counter that goes with it.
    #[vmstate(name = "last_avail_wrap_counter")]
    pub available_wrap: bool,
    /// Entry that the device uses next.
    #[vmstate(name = "used_idx")]
    pub used: u16,
    /// The wrap counter that goes with it.
    #[vmstate(name = "used_wrap_counter")]
    pub used_wrap: bool,
    /// Entries that the device has taken and not yet used.
    #[vmstate(name = "inuse")]
    pub in_use: u32,
}

/// Subsection `virtio/disabled`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "virtio/disabled", version = 1, minimum_version = 1)]
pub struct Disabled {
    /// Whether the device is switched off.
    pub disabled: bool,
}

impl<X> Extension<X> {
    /// Features that the guest has accepted, given the lower half.
    #[must_use]
    pub fn guest_features(&self, low: u32) -> u64 {
        self.features.as_ref().map_or(low.into(), |f| f.guest)
    }
}
