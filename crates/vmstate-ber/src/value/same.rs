//! Comparing bytes: names, and neighbours in lists.

/// Whether both are the same bytes. To find that out of few of them, or that they begin in another way, takes no call.
#[inline]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        0..4 => a.iter().eq(b),
        4..8 => a.first_chunk::<4>() == b.first_chunk() && a.last_chunk::<4>() == b.last_chunk(),
        8..=16 => a.first_chunk::<8>() == b.first_chunk() && a.last_chunk::<8>() == b.last_chunk(),
        _ => a.first_chunk::<8>() == b.first_chunk() && a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn every_byte_counts() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).collect();
            assert!(is_same(&bytes, &bytes.clone()));
            assert!(!is_same(&bytes, &[bytes.as_slice(), &[length]].concat()));
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&bytes, &other), "byte {at} of {length}");
            }
        }
    }
}
