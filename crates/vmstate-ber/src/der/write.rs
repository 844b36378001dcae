//! Writing: every function appends to a buffer; what encloses others gets its length when it is closed.

use super::tag;

/// Begins a constructed value. Returns the place that [`close`] wants.
pub fn open(out: &mut Vec<u8>, tag: u8) -> usize {
    // Most are shorter than 128 bytes: room for one length octet.
    out.extend_from_slice(&[tag, 0]);
    out.len()
}

/// Ends the value that was opened at `start`: its length is put before its content, which moves if it is long.
pub fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len().saturating_sub(start);
    let (octets, count) = length_octets(length);
    if let (Some(slot), Some(first)) = (
        start.checked_sub(1).and_then(|at| out.get_mut(at)),
        octets.first(),
    ) {
        *slot = *first;
    }
    insert(out, start, octets.get(1..count).unwrap_or_default());
}

/// Encloses everything from `start` on.
pub fn wrap(out: &mut Vec<u8>, start: usize, tag: u8) {
    let (octets, count) = length_octets(out.len().saturating_sub(start));
    let mut header = [tag, 0, 0, 0, 0, 0];
    for (to, from) in header.iter_mut().skip(1).zip(octets) {
        *to = from;
    }
    insert(
        out,
        start,
        header.get(..count.saturating_add(1)).unwrap_or_default(),
    );
}

fn insert(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = out.len();
    out.extend_from_slice(bytes);
    out.copy_within(at..end, at.saturating_add(bytes.len()));
    if let Some(place) = out.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// Length octets and how many of them count. Content of more than 2^32 - 1 bytes is refused by every frame's limit.
pub(crate) fn length_octets(length: usize) -> ([u8; 5], usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_be_bytes();
    match length {
        0..=0x7f => ([d, 0, 0, 0, 0], 1),
        0x80..=0xff => ([0x81, d, 0, 0, 0], 2),
        0x100..=0xffff => ([0x82, c, d, 0, 0], 3),
        0x1_0000..=0xff_ffff => ([0x83, b, c, d, 0], 4),
        _ => ([0x84, a, b, c, d], 5),
    }
}

/// Appends identifier and length octets of a value whose content, of so many bytes, follows.
pub fn put_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    let (octets, count) = length_octets(length);
    out.push(tag);
    out.extend_from_slice(octets.get(..count).unwrap_or_default());
}

/// Appends a value with this content.
pub fn put_tlv(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    put_header(out, tag, content.len());
    out.extend_from_slice(content);
}

/// Appends an integer of 64 bits, unsigned.
#[inline]
pub fn put_uint(out: &mut Vec<u8>, tag: u8, value: u64) {
    let bits = 64_u32.saturating_sub(value.leading_zeros());
    if bits == 64 {
        // A leading zero octet keeps the set top bit from being a sign.
        out.extend_from_slice(&[tag, 9, 0]);
        out.extend_from_slice(&value.to_be_bytes());
        return;
    }
    put_low_octets(out, tag, value, bits / 8);
}

/// Appends an integer of 64 bits, signed.
#[inline]
pub fn put_int(out: &mut Vec<u8>, tag: u8, value: i64) {
    // Bits that the sign does not repeat.
    let bits = 64_u32.saturating_sub((value ^ (value >> 63)).leading_zeros());
    put_low_octets(out, tag, value.cast_unsigned(), bits / 8);
}

/// Appends the low octets of `value`: one, and so many `more`, up to 7.
#[inline]
fn put_low_octets(out: &mut Vec<u8>, tag: u8, value: u64, more: u32) {
    let surplus = 7_u32.saturating_sub(more);
    let shift = surplus.saturating_mul(8) & 63;
    let length = 8_u8.saturating_sub(u8::try_from(surplus).unwrap_or(0));
    // All that there may be goes out in one piece, and what is too much is taken back: faster than to ask how much it is.
    let [a, b, c, d, e, f, g, h] = (value << shift).to_be_bytes();
    out.extend_from_slice(&[tag, length, a, b, c, d, e, f, g, h]);
    out.truncate(out.len().saturating_sub(surplus as usize));
}

/// Appends a BOOLEAN.
pub fn put_bool(out: &mut Vec<u8>, tag: u8, value: bool) {
    out.extend_from_slice(&[tag, 1, if value { 0xff } else { 0 }]);
}

/// Appends a NULL.
pub fn put_null(out: &mut Vec<u8>, tag: u8) {
    out.extend_from_slice(&[tag, 0]);
}

/// Appends an OCTET STRING.
pub fn put_octets(out: &mut Vec<u8>, bytes: &[u8]) {
    put_tlv(out, tag::OCTETS, bytes);
}

/// Appends a `UTF8String`.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_tlv(out, tag::TEXT, text.as_bytes());
}

/// Appends an ENUMERATED.
pub fn put_enumerated(out: &mut Vec<u8>, number: u8) {
    put_uint(out, tag::ENUMERATED, number.into());
}
