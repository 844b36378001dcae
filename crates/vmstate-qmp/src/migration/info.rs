//! `MigrationInfo`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MigrationStatus;

/// Result of `query-migrate`. Which members there are depends on status and side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MigrationInfo {
    /// What the migration is doing. Absent: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<MigrationStatus>,
    /// Guest memory, in numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<MigrationStats>,
    /// Bytes left, of the whole machine. QEMU 11.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// VFIO devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vfio: Option<VfioStats>,
    /// Block migration. QEMU before 9.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Value>,
    /// Old compression. QEMU before 9.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Value>,
    /// The cache for XBZRLE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xbzrle_cache: Option<XbzrleCacheStats>,
    /// Milliseconds since the beginning, or from it to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_time: Option<u64>,
    /// Milliseconds that the guest would be stopped if it was now, while not completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_downtime: Option<u64>,
    /// Milliseconds that the guest was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime: Option<u64>,
    /// Milliseconds until guest memory began to be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_time: Option<u64>,
    /// Percent of the time that processors are held up for the migration's sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttle_percentage: Option<u64>,
    /// The first error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_desc: Option<String>,
    /// Why a migration would be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_reasons: Option<Vec<String>>,
    /// Milliseconds that processors waited for pages. Destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_blocktime: Option<u64>,
    /// The same for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_vcpu_blocktime: Option<Vec<u64>>,
    /// Nanoseconds from a fault to its page. QEMU 10.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_latency: Option<u64>,
    /// How many faults took how long, by powers of two. QEMU 10.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_latency_dist: Option<Vec<u64>>,
    /// Nanoseconds from a fault to its page, for each processor. QEMU 10.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_vcpu_latency: Option<Vec<u64>>,
    /// Nanoseconds from a fault to its page, for faults of no processor. QEMU 10.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_non_vcpu_latency: Option<u64>,
    /// Where the destination listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_address: Option<Vec<Value>>,
    /// Microseconds per round that processors were held up by `dirty-limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty_limit_throttle_time_per_round: Option<u64>,
    /// Microseconds until a dirty ring is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty_limit_ring_full_time: Option<u64>,
    /// Whether nobody here can know which machine has the right to run the guest. Not QEMU's: machines of this project
    /// stop and ask instead of running a guest twice.
    #[serde(rename = "x-unknown", skip_serializing_if = "Option::is_none")]
    pub unknown: Option<bool>,
    /// How a guest fares whose memory comes when it runs already. Destination; not QEMU's.
    #[serde(rename = "x-postcopy", skip_serializing_if = "Option::is_none")]
    pub postcopy: Option<PostcopyStats>,
    /// What of the devices' state was dropped or left at its default, although the guest was taken. Destination; not QEMU's.
    #[serde(rename = "x-adapted", skip_serializing_if = "Option::is_none")]
    pub adapted: Option<AdaptedState>,
}

/// What a destination has dropped, or left as it was. Not QEMU's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AdaptedState {
    /// How many fields.
    pub count: u64,
    /// The first of them, at most 64.
    pub fields: Vec<AdaptedField>,
}

/// A field that a destination has dropped, or left as it was. Not QEMU's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AdaptedField {
    /// Why: `W-UNKNOWN`, a field that this machine does not know and its source calls ignorable; `W-COND`, a field that should
    /// be there and was not sent.
    pub rule: String,
    /// Section, description and field.
    pub path: String,
}

/// A guest whose memory comes when it runs already, in numbers. Not QEMU's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PostcopyStats {
    /// How many times a thread waited for a page.
    pub faults: u64,
    /// Nanoseconds that half of these waits did not exceed.
    pub latency_p50: u64,
    /// Nanoseconds that 99 of 100 did not exceed.
    pub latency_p99: u64,
    /// Nanoseconds of the longest.
    pub latency_max: u64,
    /// Pages that somebody waited for.
    pub requested_pages: u64,
    /// Pages that came by themselves.
    pub background_pages: u64,
    /// Pages that came again, and were dropped.
    pub repeated_pages: u64,
    /// Which pages have not arrived.
    pub missing: Vec<MissingPages>,
}

/// Pages of a block that have not arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MissingPages {
    /// Name of the block.
    pub block: String,
    /// How many target pages.
    pub pages: u64,
    /// Offset of the first in bytes.
    pub first: u64,
}

impl MigrationInfo {
    /// The status, which is `none` if it is absent.
    #[must_use]
    pub fn status(&self) -> MigrationStatus {
        self.status.clone().unwrap_or(MigrationStatus::NONE)
    }
}

/// Guest memory in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MigrationStats {
    /// Bytes sent on all channels, devices included.
    pub transferred: u64,
    /// Bytes of memory left to be sent.
    pub remaining: u64,
    /// Bytes of all memory that travels.
    pub total: u64,
    /// Pages that held zero only, or one byte value.
    pub duplicate: u64,
    /// Always 0. QEMU before 9.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
    /// Pages sent in full.
    pub normal: u64,
    /// Bytes of pages sent in full.
    pub normal_bytes: u64,
    /// Pages that the guest wrote to, per second.
    pub dirty_pages_rate: u64,
    /// Megabits per second: of the last slice, at the end of all.
    pub mbps: f64,
    /// Rounds over memory.
    pub dirty_sync_count: u64,
    /// Pages that the destination asked for.
    pub postcopy_requests: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Bytes sent over multifd channels.
    pub multifd_bytes: u64,
    /// Pages sent per second.
    pub pages_per_second: u64,
    /// Bytes sent while the guest ran at the source.
    pub precopy_bytes: u64,
    /// Bytes sent while it was stopped.
    pub downtime_bytes: u64,
    /// Bytes sent while it ran at the destination.
    pub postcopy_bytes: u64,
    /// Rounds in which zero-copy sending copied nevertheless.
    pub dirty_sync_missed_zero_copy: u64,
}

/// VFIO devices in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfioStats {
    /// Bytes sent.
    pub transferred: u64,
}

/// The cache for XBZRLE in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct XbzrleCacheStats {
    /// Bytes of the cache.
    pub cache_size: u64,
    /// Bytes sent as differences.
    pub bytes: u64,
    /// Pages sent as differences.
    pub pages: u64,
    /// Pages that were not in the cache.
    pub cache_miss: u64,
    /// Their share.
    pub cache_miss_rate: f64,
    /// How many times smaller differences are than pages.
    pub encoding_rate: f64,
    /// Pages whose difference was too long.
    pub overflow: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of three releases, as they came.
    #[test]
    fn answers_of_qemu() {
        for text in [
            r#"{}"#,
            r#"{"status": "failed", "error-desc": "Failed to connect to '/nonexistent': No such file or directory"}"#,
            r#"{"expected-downtime": 0, "status": "cancelling", "setup-time": 0, "total-time": 242, "ram": {"total": 67641344, "postcopy-requests": 0, "dirty-sync-count": 0, "multifd-bytes": 0, "pages-per-second": 0, "downtime-bytes": 0, "page-size": 4096, "remaining": 0, "postcopy-bytes": 0, "mbps": 1.5, "transferred": 0, "dirty-sync-missed-zero-copy": 0, "precopy-bytes": 0, "duplicate": 0, "dirty-pages-rate": 0, "skipped": 0, "normal-bytes": 0, "normal": 0}}"#,
            r#"{"expected-downtime": 300, "remaining": 0, "status": "cancelling", "setup-time": 0, "total-time": 242, "ram": {"total": 67641344, "postcopy-requests": 0, "dirty-sync-count": 1, "multifd-bytes": 0, "pages-per-second": 0, "downtime-bytes": 0, "page-size": 4096, "remaining": 0, "postcopy-bytes": 0, "mbps": 0.5, "transferred": 0, "dirty-sync-missed-zero-copy": 0, "precopy-bytes": 0, "duplicate": 0, "dirty-pages-rate": 0, "normal-bytes": 0, "normal": 0}}"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            let info: MigrationInfo = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&info).unwrap(), value);
        }
    }

    #[test]
    fn what_is_not_known_does_no_harm() {
        let info: MigrationInfo =
            serde_json::from_str(r#"{"status": "asleep", "colour": 1, "ram": {"mbps": 1}}"#)
                .unwrap();
        assert_eq!(info.status().name(), "asleep");
        assert!(!info.status().is_over());
        assert_eq!(info.ram.unwrap().total, 0);
        assert_eq!(MigrationInfo::default().status(), MigrationStatus::NONE);
    }
}
