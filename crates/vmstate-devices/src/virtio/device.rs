//! What all virtio devices have.

use vmstate_desc::{Codec, Element, Error, FieldValue, LoadField, SaveField};

use super::extension::Extension;
use super::transport::Transport;
use crate::codec::{get, put};

/// Most queues that a device can have.
pub const MAX_QUEUES: u32 = 1024;

/// Most bytes of configuration space that are accepted.
pub const MAX_CONFIG: u32 = 64 << 10;

/// Name of the codec in the trailer.
const CODEC: &str = "virtio";

/// A virtio device without what its class adds. Travels as one field with the codec `virtio`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Virtio<T: Transport> {
    /// How the guest reaches the device.
    pub transport: T,
    /// Status that the guest's driver has set.
    pub status: u8,
    /// Interrupt status.
    pub isr: u8,
    /// Queue that the guest's driver has selected.
    pub selected_queue: u16,
    /// Features that the guest has accepted, lower 32 bits.
    pub guest_features: u32,
    /// The configuration space, in the guest's byte order.
    pub config: Vec<u8>,
    /// The queues that the device has.
    pub queues: Vec<Virtqueue>,
    /// What later releases added.
    pub extension: Extension<T::Extra>,
}

/// A queue, as it was before version 1 of virtio: the place of its parts follows from [`Virtqueue::descriptors`]. For later
/// ones see [`RingAddresses`](super::RingAddresses).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Virtqueue {
    /// Entries.
    pub size: u32,
    /// Alignment of the used ring in bytes. Travels over MMIO only.
    pub alignment: u32,
    /// Guest-physical address of the descriptors; 0 if the queue is not set up.
    pub descriptors: u64,
    /// Entries of the available ring that the device has taken, modulo 65536.
    pub last_available: u16,
    /// MSI-X vector. Travels over PCI with MSI-X only; 0xffff is none.
    pub vector: u16,
}

impl<T: Transport> Virtio<T> {
    /// A device on this transport.
    #[must_use]
    pub fn over(transport: T) -> Self {
        Self {
            transport,
            status: 0,
            isr: 0,
            selected_queue: 0,
            guest_features: 0,
            config: Vec::new(),
            queues: Vec::new(),
            extension: Extension::default(),
        }
    }

    fn load_config(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        let len = get::<u32>(source, "config_len")?;
        if len > MAX_CONFIG {
            let reason = format!("{len} bytes of configuration space are more than {MAX_CONFIG}");
            return Err(source.refuse(CODEC, reason.into()).in_field("config_len"));
        }
        let mut left = len as usize;
        self.config.clear();
        while left > 0 {
            let mut chunk = [0; 256];
            let chunk = chunk.get_mut(..left.min(256)).unwrap_or_default();
            source.raw(chunk).map_err(|e| e.in_field("config"))?;
            source.reserve(chunk.len())?;
            self.config.extend_from_slice(chunk);
            left -= chunk.len();
        }
        Ok(())
    }

    fn load_queue(&self, source: &mut dyn LoadField) -> Result<Virtqueue, Error> {
        let mut queue = Virtqueue {
            size: get(source, "size")?,
            ..Virtqueue::default()
        };
        if T::HAS_ALIGNMENT {
            queue.alignment = get(source, "alignment")?;
        }
        queue.descriptors = get(source, "descriptors")?;
        queue.last_available = get(source, "last_available")?;
        if queue.descriptors == 0 && queue.last_available != 0 {
            let reason = format!(
                "the queue is not set up, but {} entries were taken from it",
                queue.last_available
            );
            return Err(source.refuse(CODEC, reason.into()));
        }
        self.transport.load_queue(&mut queue, source)?;
        Ok(queue)
    }
}

impl<T: Transport> FieldValue for Virtio<T> {
    const ELEMENT: Element = Element::Value(Codec::custom(CODEC, None));

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        self.transport.save(sink)?;
        put(sink, self.status)?;
        put(sink, self.isr)?;
        put(sink, self.selected_queue)?;
        put(sink, self.guest_features)?;
        let too_long = |what: &str, len: usize| {
            Error::refused(CODEC, format!("{len} {what} are too many").into())
        };
        let len = self.config.len();
        match u32::try_from(len) {
            Ok(n) if n <= MAX_CONFIG => put(sink, n)?,
            _ => return Err(too_long("bytes of configuration space", len)),
        }
        sink.raw(&self.config)?;
        let len = self.queues.len();
        match u32::try_from(len) {
            Ok(n) if n <= MAX_QUEUES => put(sink, n)?,
            _ => return Err(too_long("queues", len)),
        }
        for queue in &self.queues {
            put(sink, queue.size)?;
            if T::HAS_ALIGNMENT {
                put(sink, queue.alignment)?;
            }
            put(sink, queue.descriptors)?;
            put(sink, queue.last_available)?;
            self.transport.save_queue(queue, sink)?;
        }
        sink.child(&self.extension)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        self.transport.load(source)?;
        self.status = get(source, "status")?;
        self.isr = get(source, "isr")?;
        self.selected_queue = get(source, "selected_queue")?;
        self.guest_features = get(source, "guest_features")?;
        self.load_config(source)?;
        let len = get::<u32>(source, "queues")?;
        if len > MAX_QUEUES {
            let reason = format!("{len} queues are more than {MAX_QUEUES}");
            return Err(source.refuse(CODEC, reason.into()).in_field("queues"));
        }
        self.queues.clear();
        for index in 0..len {
            source.reserve(size_of::<Virtqueue>())?;
            let queue = self
                .load_queue(source)
                .map_err(|e| e.in_element(index.into()).in_field("queues"))?;
            self.queues.push(queue);
        }
        source.child(&mut self.extension)
    }
}
