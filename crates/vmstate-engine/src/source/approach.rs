//! The last stretch: what is left fits into the allowed downtime, but the guest need not stand still for all of it.

use std::time::Duration;

/// The longest that a guest whose rest fits is kept running.
const LONGEST: Duration = Duration::from_secs(1);

/// Sending on while the guest runs, as long as that makes the rest smaller by half each round.
///
/// It ends when a round does not, when the rest is what a millisecond carries, or when it has taken twice the
/// downtime that the operator allows: a guest that fits is not kept from its switchover for long.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Approach {
    /// Until when, and the least that was left after a round; none before something fitted.
    last: Option<(Duration, u64)>,
}

impl Approach {
    /// Whether to send on before the next exact look. `left` fits.
    pub(super) fn sends_on(
        &mut self,
        now: Duration,
        left: u64,
        bandwidth: u64,
        downtime_limit: u64,
    ) -> bool {
        let longest = Duration::from_millis(downtime_limit.saturating_mul(2)).min(LONGEST);
        let (until, _) = *self
            .last
            .get_or_insert((now.saturating_add(longest), u64::MAX));
        now < until && left > bandwidth / 1000
    }

    /// Whether another round is worth it, after an exact look. `left` fits.
    pub(super) fn another_round(
        &mut self,
        now: Duration,
        left: u64,
        bandwidth: u64,
        downtime_limit: u64,
    ) -> bool {
        let open = self.sends_on(now, left, bandwidth, downtime_limit);
        let Some((_, least)) = &mut self.last else {
            return false;
        };
        let smaller = left <= *least / 2;
        *least = left;
        open && smaller
    }
}
