//! Does it converge, and what would help?
//!
//! QEMU sends memory in rounds: each sends what has got dirty during the one before. It ends when what is left can be sent
//! within `downtime-limit` at the present rate. With rate B and dirty rate D a round is D/B times as long as the one before,
//! as long as the guest always writes to new pages; in the end it writes to the same ones again, and rounds get no shorter.

use serde::Serialize;

/// Rounds that shrink by less than this do not count as shrinking.
const SHRINKING: f64 = 0.95;
/// Added to what would just do.
const MARGIN: f64 = 1.2;
/// The largest `downtime-limit`, in milliseconds.
const LONGEST_DOWNTIME: u64 = 2_000_000;
/// As close to `max-bandwidth` as this, it is what holds the migration up.
const HELD_UP: f64 = 0.75;

/// What a forecast goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Situation {
    /// Round over memory, from 1.
    pub(super) pass: u64,
    /// Bytes left to be sent.
    pub(super) remaining: f64,
    /// Bytes that were left when this round began.
    pub(super) at_sync: Option<f64>,
    /// The same for the round before.
    pub(super) before: Option<f64>,
    /// Bytes per second on the wire.
    pub(super) throughput: f64,
    /// Bytes of guest memory that get clean per second: more than that where pages are zero or are compressed.
    pub(super) drain: f64,
    /// Bytes of guest memory that get dirty per second, as measured at the last synchronisation.
    pub(super) dirty: f64,
    /// Milliseconds.
    pub(super) downtime_limit: u64,
    /// Bytes per second. 0: no limit.
    pub(super) max_bandwidth: u64,
    pub(super) auto_converge: bool,
    pub(super) postcopy: bool,
}

/// What is to be expected if nothing changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "snake_case",
    tag = "verdict"
)]
pub enum Outlook {
    /// The first round is not over: nobody knows what gets dirty.
    FirstPass {
        /// Seconds until it is over.
        seconds: Option<f64>,
    },
    /// It ends.
    Converges {
        /// Seconds until it does.
        seconds: Option<f64>,
    },
    /// It does not end by itself.
    DoesNotConverge {
        /// Milliseconds that the guest would be stopped if the rest was sent at once.
        downtime_needed: u64,
        /// What would help.
        help: Vec<Help>,
    },
}

/// Something that would let a migration end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "snake_case",
    tag = "what"
)]
pub enum Help {
    /// A larger `downtime-limit`, in milliseconds.
    DowntimeLimit {
        /// At least this.
        milliseconds: u64,
    },
    /// A larger `max-bandwidth`, in bytes per second.
    MaxBandwidth {
        /// At least this.
        bytes_per_second: u64,
    },
    /// Slow the guest down.
    AutoConverge,
    /// Run the guest at the destination before its memory is there.
    Postcopy,
}

impl Situation {
    pub(super) fn outlook(&self) -> Outlook {
        let (Some(at_sync), true) = (self.at_sync, self.pass >= 2) else {
            return Outlook::FirstPass {
                seconds: seconds(self.remaining, self.drain),
            };
        };
        let fits = self.throughput * as_f64(self.downtime_limit) / 1000.0;
        let ratio = self.ratio(at_sync);
        if at_sync <= fits || ratio < SHRINKING {
            return Outlook::Converges {
                seconds: self.time_left(ratio, fits),
            };
        }
        let downtime_needed = milliseconds(at_sync, self.throughput);
        Outlook::DoesNotConverge {
            downtime_needed,
            help: self.help(at_sync, downtime_needed),
        }
    }

    /// How long the next round will be, compared with this one.
    fn ratio(&self, at_sync: f64) -> f64 {
        let by_rates = match self.drain {
            drain if drain > 0.0 => self.dirty / drain,
            _ => f64::INFINITY,
        };
        // What has been seen is worth more than a rate that is measured once a second, if it is known.
        match self.before {
            Some(before) if before > 0.0 => (at_sync / before).max(by_rates.min(1.0)),
            _ => by_rates,
        }
    }

    /// The rounds that are to come, each so much shorter, until the rest fits.
    fn time_left(&self, ratio: f64, fits: f64) -> Option<f64> {
        let mut left = seconds(self.remaining, self.drain)?;
        let mut round = seconds(self.at_sync.unwrap_or(self.remaining), self.drain)? * ratio;
        for _ in 0..100 {
            if round * self.drain <= fits.max(1.0) {
                break;
            }
            left += round;
            round *= ratio;
        }
        Some(left)
    }

    fn help(&self, at_sync: f64, downtime_needed: u64) -> Vec<Help> {
        let mut help = Vec::new();
        let limit = round_up(as_f64(downtime_needed) * MARGIN);
        if limit <= LONGEST_DOWNTIME {
            help.push(Help::DowntimeLimit {
                milliseconds: limit.max(self.downtime_limit + 1),
            });
        }
        let held_up = self.throughput >= as_f64(self.max_bandwidth) * HELD_UP;
        if self.max_bandwidth > 0 && held_up {
            let needed = at_sync * 1000.0 / as_f64(self.downtime_limit.max(1)) * MARGIN;
            help.push(Help::MaxBandwidth {
                bytes_per_second: round_up(needed).max(self.max_bandwidth + 1),
            });
        }
        if !self.auto_converge {
            help.push(Help::AutoConverge);
        }
        if !self.postcopy {
            help.push(Help::Postcopy);
        }
        help
    }
}

fn seconds(bytes: f64, rate: f64) -> Option<f64> {
    (rate > 0.0).then(|| bytes / rate)
}

fn milliseconds(bytes: f64, rate: f64) -> u64 {
    match rate {
        rate if rate > 0.0 => whole(bytes / rate * 1000.0),
        _ => u64::MAX,
    }
}

/// To two digits, so that nobody takes it for exact.
fn round_up(number: f64) -> u64 {
    if number >= as_f64(u64::MAX) {
        return u64::MAX;
    }
    let mut unit = 1.0;
    while number / unit >= 100.0 {
        unit *= 10.0;
    }
    whole((number / unit).ceil() * unit)
}

#[expect(clippy::cast_precision_loss, reason = "estimates")]
pub(super) fn as_f64(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast goes to the nearest number that there is"
)]
pub(super) fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    /// A guest of which 100 MiB are dirty, at 32 MiB/s.
    fn situation() -> Situation {
        Situation {
            pass: 3,
            remaining: 100.0 * MIB,
            at_sync: Some(100.0 * MIB),
            before: Some(100.0 * MIB),
            throughput: 32.0 * MIB,
            drain: 32.0 * MIB,
            dirty: 40.0 * MIB,
            downtime_limit: 300,
            max_bandwidth: 32 << 20,
            auto_converge: false,
            postcopy: false,
        }
    }

    fn seconds_of(outlook: &Outlook) -> f64 {
        match outlook {
            Outlook::FirstPass { seconds } | Outlook::Converges { seconds } => seconds.unwrap(),
            Outlook::DoesNotConverge { .. } => panic!("{outlook:?}"),
        }
    }

    #[test]
    fn nobody_knows_in_the_first_pass() {
        let first = Situation {
            pass: 1,
            remaining: 64.0 * MIB,
            ..situation()
        };
        assert!(matches!(first.outlook(), Outlook::FirstPass { .. }));
        assert!((seconds_of(&first.outlook()) - 2.0).abs() < 0.01);
        let nothing_sent = Situation {
            drain: 0.0,
            ..first
        };
        assert_eq!(nothing_sent.outlook(), Outlook::FirstPass { seconds: None });
    }

    #[test]
    fn a_guest_that_is_too_fast() {
        let Outlook::DoesNotConverge {
            downtime_needed,
            help,
        } = situation().outlook()
        else {
            panic!();
        };
        assert_eq!(downtime_needed, 3125);
        assert_eq!(
            help,
            [
                Help::DowntimeLimit { milliseconds: 3800 },
                Help::MaxBandwidth {
                    // 333 MiB/s would just do; a fifth more, rounded up.
                    bytes_per_second: 420_000_000
                },
                Help::AutoConverge,
                Help::Postcopy,
            ]
        );
        // What is on already does not help, nor does a limit that is not reached.
        let all_on = Situation {
            auto_converge: true,
            postcopy: true,
            max_bandwidth: 1 << 30,
            ..situation()
        };
        let Outlook::DoesNotConverge { help, .. } = all_on.outlook() else {
            panic!();
        };
        assert_eq!(help, [Help::DowntimeLimit { milliseconds: 3800 }]);
        let unlimited = Situation {
            max_bandwidth: 0,
            ..all_on
        };
        assert!(
            matches!(unlimited.outlook(), Outlook::DoesNotConverge { help, .. } if help.len() == 1)
        );
    }

    #[test]
    fn the_threshold_has_two_sides() {
        // 9.6 MiB can be sent in 300 ms.
        let with = |mib: f64| Situation {
            at_sync: Some(mib * MIB),
            before: Some(mib * MIB),
            ..situation()
        };
        assert!(matches!(with(9.5).outlook(), Outlook::Converges { .. }));
        assert!(matches!(
            with(9.7).outlook(),
            Outlook::DoesNotConverge { .. }
        ));
    }

    #[test]
    fn rounds_that_shrink() {
        let shrinking = Situation {
            before: Some(200.0 * MIB),
            dirty: 16.0 * MIB,
            ..situation()
        };
        // 100, 50, 25, 12.5 MiB at 32 MiB/s; the next one fits.
        let seconds = seconds_of(&shrinking.outlook());
        assert!((seconds - 187.5 / 32.0).abs() < 0.01, "{seconds}");
        let hardly = Situation {
            before: Some(102.0 * MIB),
            ..shrinking
        };
        assert!(matches!(hardly.outlook(), Outlook::DoesNotConverge { .. }));
        // In the second round only rates are known.
        let second = Situation {
            pass: 2,
            before: None,
            ..shrinking
        };
        assert!(matches!(second.outlook(), Outlook::Converges { .. }));
        let second = Situation {
            dirty: 31.0 * MIB,
            ..second
        };
        assert!(matches!(second.outlook(), Outlook::DoesNotConverge { .. }));
    }

    #[test]
    fn no_downtime_is_long_enough() {
        let slow = Situation {
            throughput: 1.0,
            drain: 1.0,
            max_bandwidth: 0,
            ..situation()
        };
        let Outlook::DoesNotConverge { help, .. } = slow.outlook() else {
            panic!();
        };
        assert_eq!(help, [Help::AutoConverge, Help::Postcopy]);
        let dead = Situation {
            throughput: 0.0,
            drain: 0.0,
            ..slow
        };
        let Outlook::DoesNotConverge {
            downtime_needed, ..
        } = dead.outlook()
        else {
            panic!();
        };
        assert_eq!(downtime_needed, u64::MAX);
    }
}
