//! Pages that wait until a frame is full.

use vmstate_ber::frame::{Coding, MAX_PAGES, MAX_ZERO_PAGES, RamPages, Select};

/// Bytes of content of a frame, at most. Small enough that a limit of the bandwidth is kept.
const CONTENT: u64 = 256 << 10;
/// The same when the guest has gone, and somebody may wait for what stands behind the frame.
const SMALL: u64 = 64 << 10;
/// Bytes of zero pages of a frame then. They take no bytes but time at the destination, so that the queue in front of what somebody waits
/// for must not hold many of them.
const ZEROS: u64 = 32 << 10;
/// Pages that a bitmap covers, at most.
const SPAN: u64 = MAX_PAGES;

/// Pages of one frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PageFrame {
    pub(super) block: u32,
    /// Without content.
    pub(super) zero: bool,
    /// First page and number of pages, ascending, with pages between them.
    pub(super) runs: Vec<(u64, u64)>,
}

impl PageFrame {
    pub(super) fn count(&self) -> u64 {
        self.runs.iter().map(|(_, count)| count).sum()
    }

    /// Makes the frame of it, with this content.
    pub(super) fn with(&self, take: &mut dyn FnMut(RamPages<'_>), data: Option<&[u8]>) {
        let Some((first, count)) = self.runs.first().copied() else {
            return;
        };
        let bits = self.bitmap(first);
        let select = match self.runs.len() {
            1 => Select::Count(count),
            _ => Select::Bitmap(&bits),
        };
        take(RamPages {
            block: self.block,
            first,
            select,
            coding: if self.zero { Coding::Zero } else { Coding::Raw },
            data,
            zeros: None,
            named: false,
            checksum: false,
        });
    }

    fn bitmap(&self, first: u64) -> Vec<u8> {
        let mut bits = Vec::new();
        if self.runs.len() < 2 {
            return bits;
        }
        for (start, count) in &self.runs {
            for page in *start..start.saturating_add(*count) {
                let bit = page.saturating_sub(first);
                let at = usize::try_from(bit / 8).unwrap_or(usize::MAX).min(511);
                if bits.len() <= at {
                    bits.resize(at + 1, 0);
                }
                if let Some(byte) = bits.get_mut(at) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        bits
    }

    /// Adds pages; what does not fit is left: its first page and number.
    fn add(&mut self, block: u32, first: u64, count: u64, most: u64) -> Option<(u64, u64)> {
        if self.runs.is_empty() {
            self.block = block;
        }
        let room = most.saturating_sub(self.count());
        let begin = self.runs.first().map_or(first, |(begin, _)| *begin);
        let adjacent = self
            .runs
            .last()
            .is_some_and(|(last, pages)| last.saturating_add(*pages) == first);
        let grows = adjacent && self.runs.len() == 1;
        // Ascending, in one block, and within reach of a bitmap if one is needed.
        let reach = match (self.runs.is_empty(), grows) {
            (true, _) | (_, true) => u64::MAX,
            _ if first < begin => 0,
            _ => begin.saturating_add(SPAN).saturating_sub(first),
        };
        let behind = self
            .runs
            .last()
            .is_none_or(|(last, pages)| last.saturating_add(*pages) <= first);
        let now = match block == self.block && behind {
            true => count.min(room).min(reach),
            false => 0,
        };
        if now > 0 {
            match self.runs.last_mut() {
                Some((_, pages)) if adjacent => *pages = pages.saturating_add(now),
                _ => self.runs.push((first, now)),
            }
        }
        (now < count).then(|| (first.saturating_add(now), count.saturating_sub(now)))
    }
}

/// Pages with content and pages of zeros, each waiting for more of their kind.
#[derive(Debug)]
pub(super) struct Pages {
    raw: PageFrame,
    zero: PageFrame,
    /// Most pages of a frame with content.
    most: u64,
    /// Most pages of a frame of zeros.
    most_zero: u64,
    /// The pages stay in the order in which they come.
    in_order: bool,
    begun: bool,
}

impl Pages {
    /// None yet, of this size in bytes.
    pub(super) fn new(page_size: u64) -> Self {
        Self {
            raw: PageFrame::default(),
            zero: PageFrame {
                zero: true,
                ..PageFrame::default()
            },
            most: CONTENT
                .checked_div(page_size)
                .unwrap_or(1)
                .clamp(1, MAX_PAGES),
            most_zero: MAX_ZERO_PAGES,
            in_order: false,
            begun: false,
        }
    }

    /// None yet, when the guest has gone: small frames, in the order of what somebody waits for, and all of a page of the memory behind
    /// them in a row.
    pub(super) fn in_order(page_size: u64) -> Self {
        Self {
            most: SMALL.checked_div(page_size).unwrap_or(1).max(1),
            most_zero: ZEROS.checked_div(page_size).unwrap_or(1).max(1),
            in_order: true,
            ..Self::new(page_size)
        }
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) const fn begin(&mut self) {
        self.begun = true;
    }

    /// Adds some of 64 pages; gives the frames that are full.
    pub(super) fn add(&mut self, block: u32, first: u64, raw: u64, zero: u64) -> Vec<PageFrame> {
        let mut full = Vec::new();
        let mut left = raw | zero;
        while left != 0 {
            let start = left.trailing_zeros();
            let is_zero = zero >> start & 1 == 1;
            let run = if is_zero { zero } else { raw & !zero };
            let run = (run >> start).trailing_ones();
            left &= u64::MAX.checked_shl(start.saturating_add(run)).unwrap_or(0);
            let (frame, other, most) = match is_zero {
                true => (&mut self.zero, &mut self.raw, self.most_zero),
                false => (&mut self.raw, &mut self.zero, self.most),
            };
            if self.in_order && !other.runs.is_empty() {
                full.push(take(other));
            }
            let mut rest = Some((first.saturating_add(start.into()), u64::from(run)));
            while let Some((first, count)) = rest {
                rest = frame.add(block, first, count, most);
                if rest.is_some() {
                    full.push(take(frame));
                }
            }
        }
        full
    }

    /// What is left.
    pub(super) fn finish(&mut self) -> Vec<PageFrame> {
        let frames = [take(&mut self.raw), take(&mut self.zero)];
        frames.into_iter().filter(|f| !f.runs.is_empty()).collect()
    }
}

fn take(frame: &mut PageFrame) -> PageFrame {
    let empty = PageFrame {
        zero: frame.zero,
        ..PageFrame::default()
    };
    std::mem::replace(frame, empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block, zero, runs.
    type Frame = (u32, bool, Vec<(u64, u64)>);

    /// All frames of these additions.
    fn frames(additions: &[(u32, u64, u64, u64)]) -> Vec<Frame> {
        let mut pages = Pages::new(4096);
        let mut all = Vec::new();
        for (block, first, raw, zero) in additions {
            all.extend(pages.add(*block, *first, *raw, *zero));
        }
        all.extend(pages.finish());
        assert!(pages.finish().is_empty());
        all.into_iter().map(|f| (f.block, f.zero, f.runs)).collect()
    }

    #[test]
    fn adjacent_pages_are_one_run_up_to_a_frames_content() {
        let full = u64::MAX;
        assert_eq!(
            frames(&[(0, 0, full, 0), (0, 64, full, 0)]),
            [(0, false, vec![(0, 64)]), (0, false, vec![(64, 64)])]
        );
        assert_eq!(
            frames(&[(0, 0, full << 32, 0), (0, 64, full, 0)]),
            [(0, false, vec![(32, 64)]), (0, false, vec![(96, 32)])]
        );
    }

    #[test]
    fn zero_pages_are_one_run_up_to_the_most_of_a_frame() {
        let words = |count| -> Vec<_> {
            let words = (0..count).map(|word| (1, word * 64, 0, u64::MAX));
            words.collect()
        };
        assert_eq!(frames(&words(200)), [(1, true, vec![(0, 12_800)])]);
        let most = MAX_ZERO_PAGES;
        assert_eq!(
            frames(&words(most / 64 + 1)),
            [(1, true, vec![(0, most)]), (1, true, vec![(most, 64)])]
        );
    }

    #[test]
    fn pages_that_somebody_waits_for_stay_in_order() {
        let mut pages = Pages::in_order(4096);
        let mut all = pages.add(0, 64, 0b1011_0001, 0b0000_1110);
        all.extend(pages.add(0, 0, u64::MAX, 0));
        all.extend(pages.add(0, 128, 0, 0xfff));
        all.extend(pages.finish());
        let all: Vec<_> = all.into_iter().map(|f| (f.zero, f.runs)).collect();
        assert_eq!(
            all,
            [
                (false, vec![(64, 1)]),
                (true, vec![(65, 3)]),
                (false, vec![(68, 2), (71, 1)]),
                (false, vec![(0, 16)]),
                (false, vec![(16, 16)]),
                (false, vec![(32, 16)]),
                (false, vec![(48, 16)]),
                (true, vec![(128, 8)]),
                (true, vec![(136, 4)]),
            ]
        );
    }

    #[test]
    fn scattered_pages_share_a_bitmap_as_far_as_it_reaches() {
        let additions = [
            (0, 0, 0b1010, 0b0101),
            (0, 4032, 1, 1 << 63),
            (0, 4096, 0b11, 0),
        ];
        assert_eq!(
            frames(&additions),
            [
                (0, false, vec![(1, 1), (3, 1), (4032, 1), (4096, 1)]),
                (0, false, vec![(4097, 1)]),
                (0, true, vec![(0, 1), (2, 1), (4095, 1)]),
            ]
        );
    }

    #[test]
    fn blocks_and_places_that_go_back_begin_anew() {
        assert_eq!(
            frames(&[(0, 64, 1, 0), (0, 0, 1, 0), (1, 1, 1, 0)]),
            [
                (0, false, vec![(64, 1)]),
                (0, false, vec![(0, 1)]),
                (1, false, vec![(1, 1)]),
            ]
        );
    }

    #[test]
    fn bits_are_where_the_pages_are() {
        let frame = PageFrame {
            block: 3,
            zero: true,
            runs: vec![(10, 2), (20, 1)],
        };
        let mut seen = Vec::new();
        frame.with(
            &mut |pages| {
                assert_eq!((pages.block, pages.first), (3, 10));
                seen = pages.select.pages().collect();
            },
            None,
        );
        assert_eq!((seen, frame.count()), (vec![0, 1, 10], 3));
    }
}
