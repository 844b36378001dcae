//! Auto-converge: vCPUs sleep more and more if memory gets dirty faster than it is sent.

use std::time::Duration;

use crate::settings::MigrationParameters;

/// At least this long between two judgements.
const PERIOD: Duration = Duration::from_secs(1);

/// When to throttle, and how much. QEMU: capability `auto-converge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Throttle {
    since: Duration,
    transferred: u64,
    dirtied: u64,
    /// Periods in which too much got dirty, since the last step.
    bad: u8,
    percent: u8,
    /// Bytes dirtied per second in the last period.
    pub(super) dirty_rate: u64,
}

impl Throttle {
    pub(super) fn new(now: Duration, transferred: u64) -> Self {
        Self {
            since: now,
            transferred,
            dirtied: 0,
            bad: 0,
            percent: 0,
            dirty_rate: 0,
        }
    }

    /// Percent of time that vCPUs sleep; 0 is no throttling.
    pub(super) fn percent(&self) -> u8 {
        self.percent
    }

    /// The dirty log has been read: `dirtied` bytes since the last time. Returns a new percentage if there is one.
    pub(super) fn synced(
        &mut self,
        now: Duration,
        transferred: u64,
        dirtied: u64,
        threshold: u64,
        parameters: &MigrationParameters,
        auto_converge: bool,
    ) -> Option<u8> {
        self.dirtied = self.dirtied.saturating_add(dirtied);
        let period = now.saturating_sub(self.since);
        if period <= PERIOD {
            return None;
        }
        let (dirty, sent) = (self.dirtied, transferred.saturating_sub(self.transferred));
        self.dirty_rate = super::rate::per_second(dirty, period);
        (self.since, self.transferred, self.dirtied) = (now, transferred, 0);
        let allowed = percent_of(sent, parameters.throttle_trigger_threshold);
        if !auto_converge || dirty <= allowed {
            return None;
        }
        self.bad = self.bad.saturating_add(1);
        if self.bad < 2 {
            return None;
        }
        self.bad = 0;
        let next = self.next(dirty, threshold, parameters);
        let changed = next != self.percent;
        self.percent = next;
        changed.then_some(next)
    }

    fn next(&self, dirty: u64, threshold: u64, parameters: &MigrationParameters) -> u8 {
        if self.percent == 0 {
            return parameters.cpu_throttle_initial.clamp(1, 99);
        }
        let mut increment = parameters.cpu_throttle_increment;
        if parameters.cpu_throttle_tailslow {
            let present = 100_u8.saturating_sub(self.percent);
            let ideal = u128::from(present)
                .saturating_mul(threshold.into())
                .checked_div(dirty.into())
                .unwrap_or(0);
            let ideal = u8::try_from(ideal).unwrap_or(present).min(present);
            increment = present.saturating_sub(ideal).min(increment);
        }
        self.percent
            .saturating_add(increment)
            .min(parameters.max_cpu_throttle)
            .clamp(1, 99)
    }
}

fn percent_of(bytes: u64, percent: u8) -> u64 {
    let part = u128::from(bytes).saturating_mul(percent.into()) / 100;
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one period of 1001 ms after another, each with these dirtied and sent bytes.
    fn run(parameters: &MigrationParameters, threshold: u64, periods: &[(u64, u64)]) -> Vec<u8> {
        let mut throttle = Throttle::new(Duration::ZERO, 0);
        let (mut now, mut sent) = (Duration::ZERO, 0);
        let mut percents = Vec::new();
        for (dirtied, bytes) in periods {
            now += Duration::from_millis(1001);
            sent += bytes;
            throttle.synced(now, sent, *dirtied, threshold, parameters, true);
            percents.push(throttle.percent());
        }
        percents
    }

    #[test]
    fn every_second_bad_period_is_a_step() {
        let parameters = MigrationParameters::default();
        assert_eq!(
            run(&parameters, 0, &[(51, 100); 7]),
            [0, 20, 20, 30, 30, 40, 40]
        );
        assert_eq!(run(&parameters, 0, &[(50, 100); 4]), [0; 4]);
        // A good period does not make up for a bad one.
        assert_eq!(
            run(&parameters, 0, &[(51, 100), (0, 100), (51, 100)]),
            [0, 0, 20]
        );
        assert_eq!(run(&parameters, 0, &[(51, 100); 40]).last(), Some(&99));
        let bounded = MigrationParameters {
            max_cpu_throttle: 35,
            ..parameters
        };
        assert_eq!(run(&bounded, 0, &[(51, 100); 10]).last(), Some(&35));
    }

    #[test]
    fn tailslow_makes_smaller_steps() {
        let parameters = MigrationParameters {
            cpu_throttle_tailslow: true,
            cpu_throttle_increment: 50,
            ..Default::default()
        };
        // 80 percent left, of which 75 would do: 5 more.
        assert_eq!(run(&parameters, 750, &[(800, 100); 4]), [0, 20, 20, 25]);
        // More than enough fits: no step.
        assert_eq!(run(&parameters, 9000, &[(800, 100); 4]), [0, 20, 20, 20]);
    }

    #[test]
    fn short_periods_add_up() {
        let parameters = MigrationParameters::default();
        let mut throttle = Throttle::new(Duration::ZERO, 0);
        let ms = Duration::from_millis;
        assert_eq!(
            throttle.synced(ms(1000), 100, 40, 0, &parameters, true),
            None
        );
        assert_eq!(
            throttle.synced(ms(1001), 100, 40, 0, &parameters, true),
            None
        );
        assert_eq!(throttle.dirty_rate, 79);
        assert_eq!(
            throttle.synced(ms(2000), 100, 40, 0, &parameters, true),
            None
        );
        assert_eq!(
            throttle.synced(ms(2100), 200, 40, 0, &parameters, true),
            Some(20)
        );
        let mut off = Throttle::new(Duration::ZERO, 0);
        for at in [2000, 4000, 6000] {
            assert_eq!(off.synced(ms(at), 0, 40, 0, &parameters, false), None);
        }
        assert_eq!(off.dirty_rate, 20);
    }
}
