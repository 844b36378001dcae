//! Finding zero pages.

/// Whether all bytes are 0.
///
/// Looks at the page in strides, so a page that is not zero usually costs one stride, and a zero page one pass at
/// the speed of memory. The compiler turns the strides into vector code.
///
/// ```
/// let mut page = [0; 4096];
/// assert!(vmstate_ram::is_zero_page(&page));
/// page[4095] = 1;
/// assert!(!vmstate_ram::is_zero_page(&page));
/// ```
#[must_use]
#[inline]
pub fn is_zero_page(page: &[u8]) -> bool {
    const STRIDE: usize = 256;
    let (strides, tail) = page.as_chunks::<STRIDE>();
    for stride in strides {
        let (words, _) = stride.as_chunks::<8>();
        let any = words
            .iter()
            .fold(0, |any, word| any | u64::from_ne_bytes(*word));
        if any != 0 {
            return false;
        }
    }
    tail.iter().fold(0, |any, byte| any | byte) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        for length in [0, 1, 7, 8, 255, 256, 257, 4096] {
            let mut page = vec![0; length];
            assert!(is_zero_page(&page), "{length}");
            for at in 0..length {
                page[at] = 0x80;
                assert!(!is_zero_page(&page), "{length} {at}");
                page[at] = 0;
            }
        }
    }
}
