//! DER: the tag-length-value layer. Definite, minimal lengths; one identifier octet; every offset known.
//!
//! X.690 clauses 8 and 10. What is not the one canonical encoding is refused, so that whatever is read encodes to the same bytes
//! again.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{DerReader, Header, Tlv, header};
pub(crate) use write::length_octets;
pub use write::{
    close, open, put_bool, put_enumerated, put_header, put_int, put_null, put_octets, put_text,
    put_tlv, put_uint, wrap,
};

/// Identifier octets.
pub mod tag {
    /// BOOLEAN: one octet, `ff` or `00`.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER: two's complement, as few octets as possible.
    pub const INTEGER: u8 = 0x02;
    /// OCTET STRING, primitive.
    pub const OCTETS: u8 = 0x04;
    /// NULL: no content.
    pub const NULL: u8 = 0x05;
    /// ENUMERATED: as INTEGER.
    pub const ENUMERATED: u8 = 0x0a;
    /// `UTF8String`, primitive.
    pub const TEXT: u8 = 0x0c;
    /// SEQUENCE, SEQUENCE OF.
    pub const SEQUENCE: u8 = 0x30;

    /// Context tag, primitive.
    #[must_use]
    pub const fn primitive(number: u8) -> u8 {
        0x80 | number
    }

    /// Context tag, constructed.
    #[must_use]
    pub const fn constructed(number: u8) -> u8 {
        0xa0 | number
    }
}
