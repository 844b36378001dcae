//! Writing packets.

use super::packet::put_head;
use super::{Method, NAME_SIZE, PacketFlags, packet_header_size};
use crate::{BlockName, PageSize, RamError, RamErrorKind};

/// Writes the packets of multifd channels as QEMU since 9.0 does: headers only, so that the driver sends the pages
/// from where they are, with a vectored write. QEMU 7.2 understands them, if no zero pages are put into packets.
///
/// Wire: QEMU 9.0..11.1; byte tables at [`Pages`](super::Pages) and [`DeviceState`](super::DeviceState).
#[derive(Debug, Clone, Copy)]
pub struct PacketWriter {
    page_size: PageSize,
    method: Method,
}

/// The header of a packet with pages.
#[derive(Debug, Clone, Copy)]
pub struct PagesHeader<'a> {
    /// The packet's number: a counter over all channels.
    pub number: u64,
    /// The block's name.
    pub block: &'a BlockName,
    /// Offsets of the normal pages in the block, in bytes, in the order of the payload.
    pub normal: &'a [u64],
    /// Offsets of the zero pages, in bytes.
    pub zero: &'a [u64],
    /// Size of the payload in bytes. Without compression: the normal pages.
    pub payload_len: usize,
}

impl PacketWriter {
    /// Makes a writer for channels with this compression.
    #[must_use]
    pub fn new(page_size: PageSize, method: Method) -> Self {
        Self { page_size, method }
    }

    /// The most pages, normal and zero together, that a packet can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.page_size.pages_per_packet() as usize
    }

    /// Appends the header of a packet with pages; exactly `payload_len` bytes must follow on the wire. The offsets
    /// are not checked against the block.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MultifdPageCount`] for more pages than fit; [`RamErrorKind::MultifdPayload`] for a payload
    /// without normal pages, or without compression of another size than theirs;
    /// [`RamErrorKind::MultifdPayloadBound`] for one longer than a stock destination has room for.
    pub fn pages_header(
        &self,
        header: &PagesHeader<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        let capacity = self.page_size.pages_per_packet();
        let count = |offsets: &[u64]| u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        let (normal, zero) = (count(header.normal), count(header.zero));
        if normal.saturating_add(zero) > capacity {
            return Err(RamErrorKind::MultifdPageCount {
                normal,
                zero,
                capacity,
            }
            .into());
        }
        let payload = self.check_payload(normal, header.payload_len)?;
        let end = out.len().saturating_add(packet_header_size(self.page_size));
        put_head(PacketFlags::empty(), self.method, out);
        for field in [capacity, normal, payload] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(&header.number.to_be_bytes());
        out.extend_from_slice(&zero.to_be_bytes());
        out.extend_from_slice(&[0; 28]);
        put_name(header.block.as_bytes(), out);
        for offset in header.normal.iter().chain(header.zero) {
            out.extend_from_slice(&offset.to_be_bytes());
        }
        out.resize(end, 0);
        Ok(())
    }

    /// Appends a SYNC packet.
    pub fn sync(&self, number: u64, out: &mut Vec<u8>) {
        let end = out.len().saturating_add(packet_header_size(self.page_size));
        put_head(PacketFlags::SYNC, Method::None, out);
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&number.to_be_bytes());
        out.resize(end, 0);
    }

    /// Appends the header of a device state packet; exactly `payload_len` bytes must follow on the wire. Allowed
    /// only where pages are not compressed.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MultifdName`] for an idstr that does not fit, [`RamErrorKind::MultifdPayloadBound`] for an
    /// empty payload or one of 4 GiB and more, [`RamErrorKind::MultifdMethod`] if pages are compressed.
    pub fn device_state_header(
        &self,
        idstr: &[u8],
        instance_id: u32,
        payload_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        if self.method != Method::None {
            return Err(RamErrorKind::MultifdMethod {
                expected: Method::None,
                found: self.method,
            }
            .into());
        }
        if idstr.is_empty() || idstr.len() >= NAME_SIZE || idstr.contains(&0) {
            return Err(RamErrorKind::MultifdName.into());
        }
        let size = match u32::try_from(payload_len) {
            Ok(size) if size > 0 => size,
            _ => {
                let (limit, found) = (u32::MAX.into(), payload_len as u64);
                return Err(RamErrorKind::MultifdPayloadBound {
                    minimum: 1,
                    limit,
                    found,
                }
                .into());
            }
        };
        put_head(PacketFlags::DEVICE_STATE, Method::None, out);
        put_name(idstr, out);
        out.extend_from_slice(&instance_id.to_be_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        Ok(())
    }

    fn check_payload(&self, normal: u32, length: usize) -> Result<u32, RamError> {
        let found = length as u64;
        let expected = u64::from(normal).saturating_mul(self.page_size.bytes());
        if normal == 0 || self.method == Method::None {
            if found != expected {
                return Err(RamErrorKind::MultifdPayload { expected, found }.into());
            }
        } else if found == 0 || found > super::PAYLOAD_LIMIT {
            let limit = super::PAYLOAD_LIMIT;
            return Err(RamErrorKind::MultifdPayloadBound {
                minimum: 1,
                limit,
                found,
            }
            .into());
        }
        // Both branches bound it to 1 MiB.
        Ok(u32::try_from(found).unwrap_or(u32::MAX))
    }
}

/// Appends a name, NUL padded. It is shorter than the field.
fn put_name(name: &[u8], out: &mut Vec<u8>) {
    let end = out.len().saturating_add(NAME_SIZE);
    out.extend_from_slice(name);
    out.resize(end, 0);
}
