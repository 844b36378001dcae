//! The packet with which a channel introduces itself.

use super::{MAGIC, VERSION};
use crate::cursor::{Cursor, Halt};
use crate::{DirtyBitmap, RamError, RamErrorKind};

/// The first packet of each multifd channel.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 4 | be | 0x11223344 |
/// | 4 | 4 | be | version, 1 |
/// | 8 | 16 | | UUID of the source's virtual machine, zeros if it has none |
/// | 24 | 1 | | channel id |
/// | 25 | 39 | | zeros |
///
/// Wire: QEMU 7.2..11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InitPacket {
    /// UUID of the source's virtual machine, in plain byte order.
    pub uuid: [u8; 16],
    /// Channel id, from 0.
    pub channel: u8,
}

impl InitPacket {
    /// Size of the packet in bytes.
    pub const SIZE: usize = 64;

    /// The bytes of the packet.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let fields = [
            &MAGIC.to_be_bytes()[..],
            &VERSION.to_be_bytes(),
            &self.uuid,
            &[self.channel],
        ];
        for (byte, field) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *field;
        }
        bytes
    }

    /// Reads the packet. What stands in the unused bytes does not matter.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MultifdMagic`], [`RamErrorKind::MultifdVersion`].
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, RamError> {
        match Self::parse(&mut Cursor::new(bytes), 0) {
            Ok(packet) => Ok(packet),
            Err(Halt::Error(error)) => Err(error),
            Err(Halt::Need(needed)) => Err(RamErrorKind::Truncated {
                needed,
                have: Self::SIZE,
            }
            .into()),
        }
    }

    pub(super) fn parse(cursor: &mut Cursor<'_>, position: u64) -> Result<Self, Halt> {
        let mut bytes = Cursor::new(cursor.take(Self::SIZE)?);
        check_head(&mut bytes, position)?;
        let uuid = *bytes.array()?;
        Ok(Self {
            uuid,
            channel: bytes.u8()?,
        })
    }
}

/// Magic and version, with which every packet begins.
pub(super) fn check_head(cursor: &mut Cursor<'_>, position: u64) -> Result<(), Halt> {
    let found = cursor.u32_be()?;
    if found != MAGIC {
        return Err(RamError::from(RamErrorKind::MultifdMagic { found })
            .at(position)
            .into());
    }
    let found = cursor.u32_be()?;
    if found != VERSION {
        let error = RamError::from(RamErrorKind::MultifdVersion { found });
        return Err(error.at(position.saturating_add(4)).into());
    }
    Ok(())
}

/// Checks the channels of one migration as they come: the right virtual machine, each id below the number of
/// channels, each only once.
#[derive(Debug, Clone)]
pub struct Admission {
    uuid: [u8; 16],
    channels: u16,
    seen: DirtyBitmap,
}

impl Admission {
    /// Makes the check for so many channels (parameter `multifd-channels`) and this UUID (zeros if there is none).
    #[must_use]
    pub fn new(uuid: [u8; 16], channels: u8) -> Self {
        Self {
            uuid,
            channels: channels.into(),
            seen: DirtyBitmap::new(channels.into()),
        }
    }

    /// Checks and notes one channel.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MultifdUuid`], [`RamErrorKind::MultifdChannel`] or [`RamErrorKind::MultifdChannelTwice`].
    pub fn admit(&mut self, packet: &InitPacket) -> Result<(), RamError> {
        let found = packet.channel;
        if packet.uuid != self.uuid {
            Err(RamErrorKind::MultifdUuid.into())
        } else if u16::from(found) >= self.channels {
            Err(RamErrorKind::MultifdChannel {
                found,
                channels: self.channels,
            }
            .into())
        } else if !self.seen.set(found.into()) {
            Err(RamErrorKind::MultifdChannelTwice { found }.into())
        } else {
            Ok(())
        }
    }

    /// Whether all channels are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.seen.count() == u64::from(self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: InitPacket = InitPacket {
        uuid: [7; 16],
        channel: 1,
    };

    #[test]
    fn bytes_are_those_of_the_wire() {
        let bytes = PACKET.encode();
        assert_eq!(bytes[..8], [0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]);
        assert_eq!(
            (&bytes[8..24], bytes[24], &bytes[25..]),
            (&[7; 16][..], 1, &[0; 39][..])
        );
        assert_eq!(InitPacket::decode(&bytes), Ok(PACKET));
    }

    #[test]
    fn refuses_another_magic_or_version() {
        let mut bytes = PACKET.encode();
        bytes[7] = 2;
        let error = InitPacket::decode(&bytes).unwrap_err();
        assert_eq!(
            (error.kind(), error.offset()),
            (&RamErrorKind::MultifdVersion { found: 2 }, Some(4))
        );
        bytes[0] = 0;
        assert_eq!(
            InitPacket::decode(&bytes).unwrap_err().kind(),
            &RamErrorKind::MultifdMagic { found: 0x22_3344 }
        );
    }

    #[test]
    fn admits_each_channel_once() {
        let mut admission = Admission::new([7; 16], 2);
        let mut admit = |uuid, channel| {
            admission
                .admit(&InitPacket {
                    uuid: [uuid; 16],
                    channel,
                })
                .map_err(|e| e.kind().clone())
        };
        assert_eq!(admit(7, 1), Ok(()));
        assert_eq!(
            admit(7, 1),
            Err(RamErrorKind::MultifdChannelTwice { found: 1 })
        );
        assert_eq!(
            admit(7, 2),
            Err(RamErrorKind::MultifdChannel {
                found: 2,
                channels: 2
            })
        );
        assert_eq!(admit(0, 0), Err(RamErrorKind::MultifdUuid));
        assert!(!admission.is_complete());
        admission
            .admit(&InitPacket {
                channel: 0,
                ..PACKET
            })
            .unwrap();
        assert!(admission.is_complete());
    }
}
