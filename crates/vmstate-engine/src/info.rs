//! Statistics: QEMU's `MigrationInfo`.

use std::time::Duration;

use crate::postcopy::{MissingBlock, PostcopyPages};
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
    /// At the destination, if the source may switch to postcopy.
    pub postcopy: Option<PostcopyInfo>,
}

/// Postcopy at the destination, in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PostcopyInfo {
    /// How long pages took to come that somebody waited for.
    pub latency: FaultLatency,
    /// What has come.
    pub pages: PostcopyPages,
    /// What has not.
    pub missing: Vec<MissingBlock>,
    /// What QEMU shows with the capability `postcopy-blocktime`; none without it.
    pub blocktime: Option<Blocktime>,
}

/// How long pages took to come that somebody waited for: from the fault to the page, for each thread that waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultLatency {
    /// How many times somebody waited.
    pub faults: u64,
    /// On average.
    pub mean: Duration,
    /// Half of all waits were at most so long, to a sixteenth.
    pub p50: Duration,
    /// 99 of 100 waits were at most so long, to a sixteenth.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// What QEMU's capability `postcopy-blocktime` measures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocktime {
    /// `postcopy-blocktime` (ms at QMP): in which all vCPUs waited at once.
    pub all_vcpus: Duration,
    /// `postcopy-vcpu-blocktime` (ms): in which each vCPU waited.
    pub vcpus: Vec<Duration>,
    /// `postcopy-latency` (ns): of a wait, on average.
    pub latency: Duration,
    /// `postcopy-latency-dist`: waits of 2^N to 2^(N+1) microseconds; the first holds shorter ones, too, the last longer ones.
    pub distribution: [u64; Self::BUCKETS],
    /// `postcopy-vcpu-latency` (ns): of each vCPU's waits, on average.
    pub vcpu_latency: Vec<Duration>,
    /// `postcopy-non-vcpu-latency` (ns): of the waits of other threads, on average.
    pub non_vcpu_latency: Duration,
}

impl Blocktime {
    /// How many ranges of latencies there are.
    pub const BUCKETS: usize = 24;
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
