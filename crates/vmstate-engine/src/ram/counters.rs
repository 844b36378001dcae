//! RAM in numbers, readable while the handler works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::requests::PageRequests;

/// Counts that the RAM handler keeps and others read, and what others may ask of it while it works. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct RamCounters(Arc<Counts>, PageRequests);

#[derive(Debug, Default)]
struct Counts {
    page_size: AtomicU64,
    total: AtomicU64,
    remaining: AtomicU64,
    normal: AtomicU64,
    duplicate: AtomicU64,
    precopy_bytes: AtomicU64,
    downtime_bytes: AtomicU64,
    postcopy_bytes: AtomicU64,
    requested: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RamTotals {
    /// Bytes of a target page.
    pub page_size: u64,
    /// Bytes of all blocks that travel.
    pub total: u64,
    /// Dirty bytes.
    pub remaining: u64,
    /// Pages sent in full.
    pub normal: u64,
    /// Zero pages sent.
    pub duplicate: u64,
    /// Bytes of records sent while the guest ran here.
    pub precopy_bytes: u64,
    /// Bytes of records sent while the guest was stopped.
    pub downtime_bytes: u64,
    /// Bytes of records sent while the guest ran there.
    pub postcopy_bytes: u64,
    /// Pages sent because the destination asked for them. They count among the others, too.
    pub requested: u64,
}

impl RamTotals {
    /// Pages sent, of either kind.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.normal.saturating_add(self.duplicate)
    }
}

impl RamCounters {
    /// The counts now. Each is right, but they may not fit together while the handler works.
    #[must_use]
    pub fn totals(&self) -> RamTotals {
        let counts = &*self.0;
        RamTotals {
            page_size: counts.page_size.load(Relaxed),
            total: counts.total.load(Relaxed),
            remaining: counts.remaining.load(Relaxed),
            normal: counts.normal.load(Relaxed),
            duplicate: counts.duplicate.load(Relaxed),
            precopy_bytes: counts.precopy_bytes.load(Relaxed),
            downtime_bytes: counts.downtime_bytes.load(Relaxed),
            postcopy_bytes: counts.postcopy_bytes.load(Relaxed),
            requested: counts.requested.load(Relaxed),
        }
    }

    /// Puts all counts to 0 but these.
    pub(super) fn begin(&self, page_size: u64, total: u64) {
        let counts = &*self.0;
        counts.page_size.store(page_size, Relaxed);
        counts.total.store(total, Relaxed);
        for count in [
            &counts.remaining,
            &counts.normal,
            &counts.duplicate,
            &counts.precopy_bytes,
            &counts.downtime_bytes,
            &counts.postcopy_bytes,
            &counts.requested,
        ] {
            count.store(0, Relaxed);
        }
    }

    pub(super) fn set_remaining(&self, bytes: u64) {
        self.0.remaining.store(bytes, Relaxed);
    }

    pub(super) fn sent(&self, sent: &Sent, when: When) {
        self.0.normal.fetch_add(sent.normal, Relaxed);
        self.0.duplicate.fetch_add(sent.zero, Relaxed);
        let bytes = match when {
            When::Precopy => &self.0.precopy_bytes,
            When::Downtime => &self.0.downtime_bytes,
            When::Postcopy => &self.0.postcopy_bytes,
        };
        bytes.fetch_add(sent.bytes, Relaxed);
        self.0.requested.fetch_add(sent.requested, Relaxed);
    }

    /// The pages that a destination asks for in postcopy.
    #[must_use]
    pub fn requests(&self) -> &PageRequests {
        &self.1
    }
}

/// What was sent since the counters were told.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) normal: u64,
    pub(super) zero: u64,
    pub(super) bytes: u64,
    /// Of these pages, those that the destination has asked for.
    pub(super) requested: u64,
}

impl Sent {
    pub(super) fn pages(&self) -> u64 {
        self.normal.saturating_add(self.zero)
    }
}

/// What the guest does meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Precopy,
    Downtime,
    Postcopy,
}
