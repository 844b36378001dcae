//! Applying a delta.

/// Why a delta cannot be applied. Places are bytes from the delta's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XbzrleError {
    /// The delta ends inside a pair, or fewer than two bytes are left for a run's number.
    #[error("delta ends inside a pair of runs at its byte {at}")]
    Truncated {
        /// Where the missing number or bytes should begin.
        at: usize,
    },
    /// A run's number is longer than two bytes.
    #[error("run length at byte {at} of the delta is longer than two bytes")]
    LongNumber {
        /// Where the number begins.
        at: usize,
    },
    /// A run of no bytes where one is not allowed.
    #[error("empty run at byte {at} of the delta")]
    EmptyRun {
        /// Where the number begins.
        at: usize,
    },
    /// A run ends behind the page.
    #[error(
        "run at byte {at} of the delta ends at page byte {end}, behind the page of {page} bytes"
    )]
    LeavesPage {
        /// Where the number begins.
        at: usize,
        /// Where the run would end in the page.
        end: usize,
        /// Size of the page in bytes.
        page: usize,
    },
}

/// Applies a delta to a page: `page` holds the present content and gets the new one.
///
/// The whole delta is checked first; on an error the page is unchanged. An empty delta changes nothing.
///
/// ```
/// let mut page = [0; 4096];
/// vmstate_ram::xbzrle::decode(&[0xe9, 0x07, 2, 0xaa, 0xbb], &mut page)?;
/// assert_eq!(page[1000..1004], [0, 0xaa, 0xbb, 0]);
/// # Ok::<(), vmstate_ram::xbzrle::XbzrleError>(())
/// ```
///
/// # Errors
///
/// Any [`XbzrleError`]; the rules are those of stock QEMU.
pub fn decode(delta: &[u8], page: &mut [u8]) -> Result<(), XbzrleError> {
    let mut check = Pairs::new(delta, page.len());
    for pair in &mut check {
        pair?;
    }
    for pair in Pairs::new(delta, page.len()) {
        let Pair { start, bytes } = pair?;
        let end = start.saturating_add(bytes.len());
        if let Some(target) = page.get_mut(start..end) {
            target.copy_from_slice(bytes);
        }
    }
    Ok(())
}

/// A changed run: its place in the page and its new bytes.
struct Pair<'a> {
    start: usize,
    bytes: &'a [u8],
}

/// Iterator over the pairs of a delta; checks each before it is yielded.
struct Pairs<'a> {
    delta: &'a [u8],
    at: usize,
    filled: usize,
    page: usize,
}

impl<'a> Pairs<'a> {
    fn new(delta: &'a [u8], page: usize) -> Self {
        Self {
            delta,
            at: 0,
            filled: 0,
            page,
        }
    }

    /// Reads one run's number and moves the place in the page over the run.
    fn run(&mut self, may_be_empty: bool) -> Result<usize, XbzrleError> {
        let at = self.at;
        let rest = self.delta.get(at..).unwrap_or_default();
        let Some(&[low, high]) = rest.first_chunk() else {
            return Err(XbzrleError::Truncated { at });
        };
        let (length, size) = match (low, high) {
            (0..0x80, _) => (usize::from(low), 1),
            (_, 0x80..) => return Err(XbzrleError::LongNumber { at }),
            _ => (usize::from(low & 0x7f) | usize::from(high) << 7, 2),
        };
        if length == 0 && !may_be_empty {
            return Err(XbzrleError::EmptyRun { at });
        }
        let end = self.filled.saturating_add(length);
        if end > self.page {
            return Err(XbzrleError::LeavesPage {
                at,
                end,
                page: self.page,
            });
        }
        self.at = at.saturating_add(size);
        self.filled = end;
        Ok(length)
    }

    fn pair(&mut self) -> Result<Pair<'a>, XbzrleError> {
        self.run(self.at == 0)?;
        let start = self.filled;
        let length = self.run(false)?;
        let end = self.at.saturating_add(length);
        let bytes = self
            .delta
            .get(self.at..end)
            .ok_or(XbzrleError::Truncated { at: self.at })?;
        self.at = end;
        Ok(Pair { start, bytes })
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<Pair<'a>, XbzrleError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.delta.len()).then(|| self.pair())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(delta: &[u8], expected: Result<&[u8], XbzrleError>) {
        let mut page = *b"0123456789";
        let outcome = decode(delta, &mut page);
        match expected {
            Ok(content) => {
                assert_eq!(outcome, Ok(()));
                assert_eq!(page, content);
            }
            Err(error) => {
                assert_eq!(outcome, Err(error));
                assert_eq!(&page, b"0123456789", "an error must leave the page alone");
            }
        }
    }

    #[test]
    fn applies_pairs() {
        check(&[], Ok(b"0123456789"));
        check(&[0, 1, b'a'], Ok(b"a123456789"));
        check(&[2, 1, b'a', 1, 2, b'b', b'c'], Ok(b"01a3bc6789"));
        check(&[8, 2, b'a', b'b'], Ok(b"01234567ab"));
        // Two-byte numbers where one byte would do.
        check(&[0x82, 0, 0x81, 0, b'a'], Ok(b"01a3456789"));
    }

    #[test]
    fn refuses_what_stock_refuses() {
        check(&[3], Err(XbzrleError::Truncated { at: 0 }));
        check(&[1, 1, b'a', 3], Err(XbzrleError::Truncated { at: 3 }));
        check(&[1, 1, b'a', 3, 1], Err(XbzrleError::Truncated { at: 4 }));
        check(&[1, 2, b'a'], Err(XbzrleError::Truncated { at: 2 }));
        check(
            &[0x83, 1],
            Err(XbzrleError::LeavesPage {
                at: 0,
                end: 131,
                page: 10,
            }),
        );
        check(&[0x83, 0], Err(XbzrleError::Truncated { at: 2 }));
        check(&[0, 0, 0], Err(XbzrleError::EmptyRun { at: 1 }));
        check(
            &[1, 1, b'a', 0, 1, b'b'],
            Err(XbzrleError::EmptyRun { at: 3 }),
        );
        check(
            &[1, 1, b'a', 0x80, 0, 1, b'b'],
            Err(XbzrleError::EmptyRun { at: 3 }),
        );
        check(&[0x81, 0x80, 1], Err(XbzrleError::LongNumber { at: 0 }));
        check(
            &[11, 1, b'a'],
            Err(XbzrleError::LeavesPage {
                at: 0,
                end: 11,
                page: 10,
            }),
        );
        check(
            &[9, 2, b'a', b'b'],
            Err(XbzrleError::LeavesPage {
                at: 1,
                end: 11,
                page: 10,
            }),
        );
        check(
            &[10, 1, b'a'],
            Err(XbzrleError::LeavesPage {
                at: 1,
                end: 11,
                page: 10,
            }),
        );
    }
}
