//! A clock input or output.

use vmstate_derive::VmState;

/// How fast a clock runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "clock")]
pub struct Clock {
    /// Length of one period in units of 2⁻³² ns; 0 when the clock stands still.
    pub period: u64,
    /// The ratio that is applied to the period; none is 1/1.
    #[vmstate(subsection)]
    pub ratio: Option<Ratio>,
}

/// `clock/muldiv`: the period is multiplied and divided.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "clock/muldiv", version = 1, minimum_version = 1)]
pub struct Ratio {
    /// The period is multiplied by this.
    pub multiplier: u32,
    /// The period is divided by this.
    pub divider: u32,
}

impl Clock {
    /// Whole periods per second.
    #[must_use]
    pub fn hertz(&self) -> u64 {
        (1_000_000_000_u128 << 32)
            .checked_div(u128::from(self.period))
            .map_or(0, |hertz| u64::try_from(hertz).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequency() {
        let clock = |period| Clock {
            period,
            ratio: None,
        };
        assert_eq!(clock(0).hertz(), 0);
        assert_eq!(clock(1 << 32).hertz(), 1_000_000_000);
        assert_eq!(clock(10 << 32).hertz(), 100_000_000);
    }
}
