//! Statistics: QEMU's `MigrationInfo`.

use std::time::Duration;

use crate::status::MigrationStatus;

/// What `query-migrate` says. Absent members are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MigrationInfo {
    /// `status`: absent if there was no migration yet.
    pub status: Option<MigrationStatus>,
    /// `ram`.
    pub ram: Option<MigrationStats>,
    /// `remaining` (since 11.1): bytes left of the whole machine.
    pub remaining: Option<u64>,
    /// `total-time` (ms at QMP): since the start, or of the whole migration.
    pub total_time: Option<Duration>,
    /// `expected-downtime` (ms): what the switchover would take now.
    pub expected_downtime: Option<Duration>,
    /// `downtime` (ms): what it took.
    pub downtime: Option<Duration>,
    /// `setup-time` (ms): until the end of the handlers' setup.
    pub setup_time: Option<Duration>,
    /// `cpu-throttle-percentage`: while vCPUs are throttled.
    pub cpu_throttle_percentage: Option<u8>,
    /// `error-desc`: the first error.
    pub error_desc: Option<String>,
    /// `blocked-reasons`: why `migrate` would be refused.
    pub blocked_reasons: Vec<String>,
    /// Whether nobody on this side can know which machine has the right to run the guest. QEMU has no such member.
    pub unknown: bool,
}

/// RAM in numbers: QEMU's `MigrationStats`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MigrationStats {
    /// `transferred`: bytes sent on all channels, headers and devices included.
    pub transferred: u64,
    /// `remaining`: dirty bytes.
    pub remaining: u64,
    /// `total`: bytes of all blocks that travel.
    pub total: u64,
    /// `duplicate`: zero pages sent.
    pub duplicate: u64,
    /// `normal`: pages sent in full.
    pub normal: u64,
    /// `normal-bytes`: their bytes.
    pub normal_bytes: u64,
    /// `dirty-pages-rate`: pages dirtied per second in the last period.
    pub dirty_pages_rate: u64,
    /// `mbps`: megabits per second in the last slice; in the end, of the whole migration.
    pub mbps: f64,
    /// `dirty-sync-count`: rounds, from 1 on.
    pub dirty_sync_count: u64,
    /// `postcopy-requests`: page requests received.
    pub postcopy_requests: u64,
    /// `page-size`: bytes of a target page.
    pub page_size: u64,
    /// `multifd-bytes`: bytes sent on multifd channels.
    pub multifd_bytes: u64,
    /// `pages-per-second`: pages sent per second in the last slice.
    pub pages_per_second: u64,
    /// `precopy-bytes`: bytes of RAM records sent while the guest ran here.
    pub precopy_bytes: u64,
    /// `downtime-bytes`: bytes of RAM records sent while it was stopped.
    pub downtime_bytes: u64,
    /// `postcopy-bytes`: bytes of RAM records sent while it ran there.
    pub postcopy_bytes: u64,
    /// `dirty-sync-missed-zero-copy`.
    pub dirty_sync_missed_zero_copy: u64,
}
