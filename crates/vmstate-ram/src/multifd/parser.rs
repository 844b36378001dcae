//! The incremental parser of one multifd channel.

use super::init::check_head;
use super::packet::name_in;
use super::{
    DEVICE_HEADER_SIZE, DeviceState, InitPacket, Method, NAME_SIZE, Offsets, PAYLOAD_LIMIT,
    PacketFlags, Pages, packet_header_size,
};
use crate::cursor::{Cursor, Halt};
use crate::record::Step;
use crate::{PageSize, RamError, RamErrorKind};

/// What a reader of multifd channels must know beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelSettings {
    /// The target page size; it fixes the size of packet headers.
    pub page_size: PageSize,
    /// The compression that packets with pages must have.
    pub method: Method,
    /// The longest payload of a device state packet, in bytes.
    pub device_state_limit: u32,
}

impl Default for ChannelSettings {
    /// Pages of 4 KiB, no compression, device state up to 16 MiB per packet.
    fn default() -> Self {
        Self {
            page_size: PageSize::KIB4,
            method: Method::None,
            device_state_limit: 16 << 20,
        }
    }
}

/// What stands next on a multifd channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelEvent<'a> {
    /// The channel introduces itself.
    Init(InitPacket),
    /// A packet with pages.
    Pages(Pages<'a>),
    /// A packet that is only a synchronisation point.
    Sync {
        /// The packet's number.
        number: u64,
    },
    /// A packet without pages and without flags, as sources before QEMU 9.0 send it. It says nothing.
    Empty {
        /// The packet's number.
        number: u64,
    },
    /// A packet with device state.
    DeviceState(DeviceState<'a>),
}

/// Parses one multifd channel, from input in pieces of any size.
///
/// Follows the reader's rule for sources of all releases: in a packet without pages nothing but flags and number is
/// looked at, because old sources leave payload size, block name and offsets of earlier packets there.
///
/// The channel may end between packets; [`is_between_packets`](Self::is_between_packets) tells.
///
/// On an error nothing is consumed and the state is unchanged.
///
/// Wire: QEMU 7.2..11.1.
#[derive(Debug, Clone)]
pub struct ChannelParser {
    settings: ChannelSettings,
    state: State,
    position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Init,
    Packet,
    /// So much payload is in the driver's hands.
    Payload(usize),
}

impl ChannelParser {
    /// Makes a parser for a new channel, which begins with the initial packet.
    #[must_use]
    pub fn new(settings: ChannelSettings) -> Self {
        Self {
            settings,
            state: State::Init,
            position: 0,
        }
    }

    /// Makes a parser for a channel whose initial packet has been read already.
    #[must_use]
    pub fn after_init(settings: ChannelSettings) -> Self {
        Self {
            settings,
            state: State::Packet,
            position: InitPacket::SIZE as u64,
        }
    }

    /// Offset of the next byte, in bytes from the beginning of the channel.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the channel may end here, if no input is left.
    #[must_use]
    pub fn is_between_packets(&self) -> bool {
        self.state == State::Packet
    }

    /// Understands the packet at the front of `input`, when all of it is there.
    ///
    /// # Errors
    ///
    /// Any kind of [`RamErrorKind`] that concerns multifd.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<ChannelEvent<'a>>, RamError> {
        self.advance(input, true)
    }

    /// Like [`step`](Self::step), but a packet comes without its payload. The driver takes
    /// [`payload_due`](Self::payload_due) bytes by itself, and says so with [`payload_done`](Self::payload_done).
    ///
    /// # Errors
    ///
    /// As for `step`.
    pub fn step_header<'a>(&mut self, input: &'a [u8]) -> Result<Step<ChannelEvent<'a>>, RamError> {
        self.advance(input, false)
    }

    /// How many bytes of payload the driver has to take before the next step.
    #[must_use]
    pub fn payload_due(&self) -> usize {
        if let State::Payload(length) = self.state {
            length
        } else {
            0
        }
    }

    /// The driver has taken the payload.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::OutOfTurn`] if no payload is due.
    pub fn payload_done(&mut self) -> Result<(), RamError> {
        let State::Payload(length) = self.state else {
            let kind = RamErrorKind::OutOfTurn {
                what: "no payload is due",
            };
            return Err(RamError::from(kind).at(self.position));
        };
        self.state = State::Packet;
        self.position = self.position.saturating_add(length as u64);
        Ok(())
    }

    fn advance<'a>(
        &mut self,
        input: &'a [u8],
        whole: bool,
    ) -> Result<Step<ChannelEvent<'a>>, RamError> {
        let mut cursor = Cursor::new(input);
        let outcome = match self.state {
            State::Init => InitPacket::parse(&mut cursor, self.position).map(ChannelEvent::Init),
            State::Packet => self.packet(&mut cursor, whole),
            State::Payload(_) => Err(self.refuse(
                0,
                RamErrorKind::OutOfTurn {
                    what: "a payload is due",
                },
            )),
        };
        match outcome {
            Ok(event) => {
                self.position = self.position.saturating_add(cursor.consumed() as u64);
                let due = match event {
                    ChannelEvent::Pages(pages) if !whole => pages.payload_len,
                    ChannelEvent::DeviceState(state) if !whole => state.payload_len,
                    _ => 0,
                };
                self.state = if due == 0 {
                    State::Packet
                } else {
                    State::Payload(due)
                };
                Ok(Step::Event {
                    consumed: cursor.consumed(),
                    event,
                })
            }
            Err(Halt::Need(at_least)) => Ok(Step::NeedMore { at_least }),
            Err(Halt::Error(error)) => Err(error),
        }
    }

    fn packet<'a>(&self, cursor: &mut Cursor<'a>, whole: bool) -> Result<ChannelEvent<'a>, Halt> {
        // The size of the header depends on a flag, so look at the common part first.
        let mut common = *cursor;
        check_head(&mut common, self.position)?;
        let bits = common.u32_be()?;
        let Some(flags) = PacketFlags::from_bits(bits) else {
            let found = bits & !PacketFlags::all().bits();
            return Err(self.refuse(8, RamErrorKind::MultifdFlags { found }));
        };
        if flags.contains(PacketFlags::DEVICE_STATE) {
            self.device_state(cursor, flags, whole)
                .map(ChannelEvent::DeviceState)
        } else {
            self.pages(cursor, flags, whole)
        }
    }

    fn pages<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        flags: PacketFlags,
        whole: bool,
    ) -> Result<ChannelEvent<'a>, Halt> {
        let mut header = Cursor::new(cursor.take(packet_header_size(self.settings.page_size))?);
        header.take(12)?;
        let capacity = header.u32_be()?;
        let normal = header.u32_be()?;
        let payload_size = header.u32_be()?;
        let number = header.u64_be()?;
        let zero = header.u32_be()?;
        header.take(28)?;
        let sync = flags.contains(PacketFlags::SYNC);
        let limit = self.settings.page_size.pages_per_packet();
        if capacity > limit {
            return Err(self.refuse(
                12,
                RamErrorKind::MultifdCapacity {
                    found: capacity,
                    limit,
                },
            ));
        }
        if normal
            .checked_add(zero)
            .is_none_or(|pages| pages > capacity)
        {
            return Err(self.refuse(
                16,
                RamErrorKind::MultifdPageCount {
                    normal,
                    zero,
                    capacity,
                },
            ));
        }
        if normal == 0 && zero == 0 {
            return Ok(if sync {
                ChannelEvent::Sync { number }
            } else {
                ChannelEvent::Empty { number }
            });
        }
        let method = self.method(flags)?;
        self.check_payload(method, normal, payload_size)?;
        let block = name_in(header.array::<NAME_SIZE>()?).map_err(|kind| self.refuse(64, kind))?;
        let mut offsets = |count: u32| -> Result<Offsets<'a>, Halt> {
            let bytes = header.take((count as usize).saturating_mul(8))?;
            Ok(Offsets(bytes.as_chunks().0))
        };
        let (normal, zero) = (offsets(normal)?, offsets(zero)?);
        let payload_len = if normal.is_empty() {
            0
        } else {
            payload_size as usize
        };
        let payload = if whole {
            cursor.take(payload_len)?
        } else {
            &[]
        };
        Ok(ChannelEvent::Pages(Pages {
            number,
            method,
            sync,
            block,
            normal,
            zero,
            payload_len,
            payload,
        }))
    }

    fn method(&self, flags: PacketFlags) -> Result<Method, Halt> {
        let Some(found) = Method::from_bits(flags.bits()) else {
            let found = (flags & PacketFlags::METHOD).bits();
            return Err(self.refuse(8, RamErrorKind::MultifdMethodBits { found }));
        };
        let expected = self.settings.method;
        if found != expected {
            return Err(self.refuse(8, RamErrorKind::MultifdMethod { expected, found }));
        }
        Ok(found)
    }

    /// The payload size that a packet with so many normal pages may announce.
    fn check_payload(&self, method: Method, normal: u32, size: u32) -> Result<(), Halt> {
        let found = u64::from(size);
        let pages = u64::from(normal);
        let page = self.settings.page_size.bytes();
        let (minimum, limit) = match method {
            // QEMU's own reader does not look at the size when nothing is compressed and nothing follows.
            Method::None if normal == 0 => return Ok(()),
            _ if normal == 0 => (0, 0),
            Method::None => (pages.saturating_mul(page), pages.saturating_mul(page)),
            Method::Zlib | Method::Zstd | Method::Qatzip => (1, PAYLOAD_LIMIT),
            // A length and at least one byte, at most a raw page, for each page.
            Method::Qpl | Method::Uadk => (
                pages.saturating_mul(5),
                pages.saturating_mul(page.saturating_add(4)),
            ),
        };
        if (minimum..=limit).contains(&found) {
            Ok(())
        } else if minimum == limit {
            Err(self.refuse(
                20,
                RamErrorKind::MultifdPayload {
                    expected: limit,
                    found,
                },
            ))
        } else {
            Err(self.refuse(
                20,
                RamErrorKind::MultifdPayloadBound {
                    minimum,
                    limit,
                    found,
                },
            ))
        }
    }

    fn device_state<'a>(
        &self,
        cursor: &mut Cursor<'a>,
        flags: PacketFlags,
        whole: bool,
    ) -> Result<DeviceState<'a>, Halt> {
        if flags.contains(PacketFlags::SYNC) {
            return Err(self.refuse(8, RamErrorKind::MultifdDeviceSync));
        }
        if flags.intersects(PacketFlags::METHOD) {
            let found = (flags & PacketFlags::METHOD).bits();
            return Err(self.refuse(8, RamErrorKind::MultifdMethodBits { found }));
        }
        let mut header = Cursor::new(cursor.take(DEVICE_HEADER_SIZE)?);
        header.take(12)?;
        let idstr = name_in(header.array::<NAME_SIZE>()?).map_err(|kind| self.refuse(12, kind))?;
        let instance_id = header.u32_be()?;
        let size = header.u32_be()?;
        let limit = self.settings.device_state_limit;
        if size == 0 || size > limit {
            let (limit, found) = (limit.into(), size.into());
            return Err(self.refuse(
                272,
                RamErrorKind::MultifdPayloadBound {
                    minimum: 1,
                    limit,
                    found,
                },
            ));
        }
        let payload_len = size as usize;
        let payload = if whole {
            cursor.take(payload_len)?
        } else {
            &[]
        };
        Ok(DeviceState {
            idstr,
            instance_id,
            payload_len,
            payload,
        })
    }

    #[cold]
    fn refuse(&self, at: u64, kind: RamErrorKind) -> Halt {
        Halt::Error(RamError::from(kind).at(self.position.saturating_add(at)))
    }
}

#[cfg(test)]
mod tests;
