//! Points in time that lie ahead.

use std::time::{Duration, Instant};

/// Further ahead than anybody waits: a hundred years.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// This long from now. What a user says may be more than the clock can count.
pub(crate) fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_too_long() {
        let before = Instant::now();
        assert!(after(Duration::MAX) > before + FAR / 2);
        assert!(after(Duration::from_secs(u64::MAX)) > before + FAR / 2);
        assert!(after(Duration::ZERO) < before + FAR / 2);
    }
}
