//! Which pages the kernel has given: what was never written is zero, and need not be looked at.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::{Backing, GuestRam};

/// Bytes of an entry of `/proc/self/pagemap`.
const ENTRY: usize = 8;
/// The page is in memory, or in swap.
const GIVEN: u64 = 0b11 << 62;

/// The file, if it can be opened; for the whole process.
fn pagemap() -> Option<&'static File> {
    static PAGEMAP: OnceLock<Option<File>> = OnceLock::new();
    PAGEMAP
        .get_or_init(|| File::open("/proc/self/pagemap").ok())
        .as_ref()
}

impl GuestRam {
    /// Which of 64 pages of 4096 bytes, from a multiple of that on, were never written, and so are zero: bit i for page i. They
    /// are not touched by the question, as they are by [`is_zero`](Self::is_zero): a large and mostly empty memory stays so.
    ///
    /// 0 where the kernel does not say, and for pages that are not inside.
    #[must_use]
    pub fn untouched(&self, offset: u64) -> u64 {
        let page = rustix::param::page_size();
        // A file's pages may be there without being mapped here.
        let (Some(file), 4096, Backing::Anonymous) = (pagemap(), page, self.backing) else {
            return 0;
        };
        let pages = (self.len().saturating_sub(offset) / 4096).min(64);
        let Ok((base, len)) = self.pointer(offset, pages * 4096) else {
            return 0;
        };
        let mut entries = [0; 64 * ENTRY];
        let Some(entries) = entries.get_mut(..len / page * ENTRY) else {
            return 0;
        };
        let at = (base.addr() / page * ENTRY) as u64;
        if !offset.is_multiple_of(4096) || file.read_exact_at(entries, at).is_err() {
            return 0;
        }
        let (entries, _) = entries.as_chunks::<ENTRY>();
        entries.iter().zip(0..).fold(0, |untouched, (entry, i)| {
            let given = u64::from_ne_bytes(*entry) & GIVEN != 0;
            untouched | u64::from(!given) << i
        })
    }
}
