//! The table of parameters.

use super::{MigrationMode, MultifdCompression, ParameterValue, Peer, ZeroPageDetection};

/// A parameter was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// There is no such parameter, or this machine has none.
    #[error("Parameter '{0}' is not supported")]
    Unsupported(String),
    /// A value of another kind.
    #[error("Parameter '{name}' expects {expected}")]
    Kind {
        /// The parameter.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A number outside of the range.
    #[error("Parameter '{name}' expects an integer in the range of {minimum} to {maximum}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// Smallest value.
        minimum: u64,
        /// Largest value.
        maximum: u64,
    },
    /// Not one of the choices.
    #[error("Parameter '{name}' does not accept value '{found}'")]
    Choice {
        /// The parameter.
        name: &'static str,
        /// The value.
        found: String,
    },
    /// A number that is no power of two, or too small a one.
    #[error("Parameter '{name}' expects a power of two of at least {minimum}")]
    PowerOfTwo {
        /// The parameter.
        name: &'static str,
        /// Smallest value.
        minimum: u64,
    },
}

/// One kind of value: how it comes and goes.
trait Kind: Sized {
    fn from_value(name: &'static str, value: &ParameterValue) -> Result<Self, ParameterError>;
    fn to_value(&self) -> ParameterValue;
    /// Checks a number's range.
    fn in_range(&self, name: &'static str, range: (u64, u64)) -> Result<(), ParameterError> {
        let _ = (name, range);
        Ok(())
    }
}

macro_rules! numbers {
    ($($type:ident),*) => {$(
        impl Kind for $type {
            fn from_value(name: &'static str, value: &ParameterValue) -> Result<Self, ParameterError> {
                let ParameterValue::Number(number) = value else {
                    return Err(ParameterError::Kind { name, expected: "an integer" });
                };
                Self::try_from(*number).map_err(|_| ParameterError::Range {
                    name,
                    minimum: 0,
                    maximum: Self::MAX.into(),
                })
            }

            fn to_value(&self) -> ParameterValue {
                ParameterValue::Number((*self).into())
            }

            fn in_range(&self, name: &'static str, (minimum, maximum): (u64, u64)) -> Result<(), ParameterError> {
                if (minimum..=maximum).contains(&u64::from(*self)) {
                    Ok(())
                } else {
                    Err(ParameterError::Range { name, minimum, maximum })
                }
            }
        }
    )*};
}

numbers!(u8, u32, u64);

impl Kind for bool {
    fn from_value(name: &'static str, value: &ParameterValue) -> Result<Self, ParameterError> {
        match value {
            ParameterValue::Switch(on) => Ok(*on),
            _ => Err(ParameterError::Kind {
                name,
                expected: "a boolean",
            }),
        }
    }

    fn to_value(&self) -> ParameterValue {
        ParameterValue::Switch(*self)
    }
}

macro_rules! choices {
    ($($type:ident),*) => {$(
        impl Kind for $type {
            fn from_value(name: &'static str, value: &ParameterValue) -> Result<Self, ParameterError> {
                let ParameterValue::Text(text) = value else {
                    return Err(ParameterError::Kind { name, expected: "a string" });
                };
                Self::from_name(text).ok_or_else(|| ParameterError::Choice {
                    name,
                    found: text.clone(),
                })
            }

            fn to_value(&self) -> ParameterValue {
                self.name().into()
            }
        }
    )*};
}

choices!(MultifdCompression, ZeroPageDetection, MigrationMode, Peer);

macro_rules! parameters {
    ($($(#[$meta:meta])* $field:ident: $type:ty = $default:expr, $name:literal $(in $low:literal..=$high:expr)?;)*) => {
        /// The values of all parameters: QEMU's `MigrationParameters` with its names and defaults.
        ///
        /// Those that steer what this engine does not do (TLS, RDMA, block dirty bitmaps, CPR) are not here and refused
        /// by name.
        ///
        /// ```
        /// use vmstate_engine::MigrationParameters;
        ///
        /// let mut parameters = MigrationParameters::default();
        /// assert_eq!(parameters.downtime_limit, 300);
        /// parameters = parameters.changed(&[("max-bandwidth", 0.into()), ("downtime-limit", 50.into())], 4096)?;
        /// assert_eq!(
        ///     parameters.changed(&[("downtime-limit", 2_000_001.into())], 4096).unwrap_err().to_string(),
        ///     "Parameter 'downtime-limit' expects an integer in the range of 0 to 2000000"
        /// );
        /// # Ok::<(), vmstate_engine::ParameterError>(())
        /// ```
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct MigrationParameters {
            $($(#[$meta])* pub $field: $type,)*
        }

        impl Default for MigrationParameters {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl MigrationParameters {
            /// The names of all parameters here: QEMU's in its order, then our own.
            pub const NAMES: &[&str] = &[$($name,)*];

            /// All names and values, in the order of `query-migrate-parameters`.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, ParameterValue)> {
                vec![$(($name, self.$field.to_value()),)*]
            }

            fn set(&mut self, name: &str, value: &ParameterValue) -> Result<(), ParameterError> {
                match name {
                    $($name => self.$field = Kind::from_value($name, value)?,)*
                    other => return Err(ParameterError::Unsupported(other.to_owned())),
                }
                Ok(())
            }

            fn check_ranges(&self) -> Result<(), ParameterError> {
                $($(self.$field.in_range($name, ($low, $high))?;)?)*
                Ok(())
            }
        }
    };
}

parameters! {
    /// Milliseconds before the second announcement of the guest's network addresses.
    announce_initial: u64 = 50, "announce-initial" in 0..=100_000;
    /// Longest delay between announcements, in milliseconds.
    announce_max: u64 = 550, "announce-max" in 0..=100_000;
    /// Number of announcements.
    announce_rounds: u64 = 5, "announce-rounds" in 0..=1000;
    /// Milliseconds by which the delay grows.
    announce_step: u64 = 100, "announce-step" in 1..=10_000;
    /// Percent of what was sent that may get dirty meanwhile before vCPUs are throttled.
    throttle_trigger_threshold: u8 = 50, "throttle-trigger-threshold" in 1..=100;
    /// Percent of time that vCPUs sleep when throttling begins.
    cpu_throttle_initial: u8 = 20, "cpu-throttle-initial" in 1..=99;
    /// Percent by which it grows.
    cpu_throttle_increment: u8 = 10, "cpu-throttle-increment" in 1..=99;
    /// Grow in smaller steps at the end.
    cpu_throttle_tailslow: bool = false, "cpu-throttle-tailslow";
    /// Bytes per second while the guest runs here; 0 is no limit.
    max_bandwidth: u64 = 128 << 20, "max-bandwidth";
    /// Bytes per second that are taken for granted during the switchover; 0 measures.
    avail_switchover_bandwidth: u64 = 0, "avail-switchover-bandwidth";
    /// Milliseconds that the guest may be stopped.
    downtime_limit: u64 = 300, "downtime-limit" in 0..=2_000_000;
    /// Milliseconds between two checkpoints of COLO.
    x_checkpoint_delay: u32 = 20_000, "x-checkpoint-delay";
    /// Number of extra channels for RAM; equal on both sides.
    multifd_channels: u8 = 2, "multifd-channels" in 1..=255;
    /// Bytes of the cache for deltas: a power of two, at least a target page.
    xbzrle_cache_size: u64 = 64 << 20, "xbzrle-cache-size";
    /// Bytes per second once the guest runs at the destination; 0 is no limit.
    max_postcopy_bandwidth: u64 = 0, "max-postcopy-bandwidth";
    /// Largest percentage of throttling; at least `cpu-throttle-initial`.
    max_cpu_throttle: u8 = 99, "max-cpu-throttle" in 1..=99;
    /// How multifd channels compress; equal on both sides.
    multifd_compression: MultifdCompression = MultifdCompression::None, "multifd-compression";
    /// Level of zlib: 1 is fast, 9 is small, 0 is none.
    multifd_zlib_level: u8 = 1, "multifd-zlib-level" in 0..=9;
    /// Level of zstd: 1 is fast, 20 is small, 0 is none.
    multifd_zstd_level: u8 = 1, "multifd-zstd-level" in 0..=20;
    /// Level of `QATzip`: 1 is fast, 9 is small.
    multifd_qatzip_level: u8 = 1, "multifd-qatzip-level" in 1..=9;
    /// Milliseconds over which a vCPU's dirty rate is measured.
    x_vcpu_dirty_limit_period: u64 = 1000, "x-vcpu-dirty-limit-period" in 1..=1000;
    /// MB per second that a vCPU may write with the capability `dirty-limit`.
    vcpu_dirty_limit: u64 = 1, "vcpu-dirty-limit" in 1..=u64::MAX;
    /// What kind of migration.
    mode: MigrationMode = MigrationMode::Normal, "mode";
    /// Who looks for zero pages.
    zero_page_detection: ZeroPageDetection = ZeroPageDetection::Multifd, "zero-page-detection";
    /// Write files past the page cache.
    direct_io: bool = false, "direct-io";
    /// Which format the stream has.
    x_peer: Peer = Peer::Auto, "x-peer";
}

impl MigrationParameters {
    /// Applies a set of changes and checks the result as a whole: all or nothing. `page_size` is the target page size
    /// in bytes.
    ///
    /// # Errors
    ///
    /// [`ParameterError`].
    pub fn changed(
        &self,
        changes: &[(&str, ParameterValue)],
        page_size: u64,
    ) -> Result<Self, ParameterError> {
        let mut new = self.clone();
        for (name, value) in changes {
            new.set(name, value)?;
        }
        new.check_ranges()?;
        if new.max_cpu_throttle < new.cpu_throttle_initial {
            return Err(ParameterError::Range {
                name: "max-cpu-throttle",
                minimum: new.cpu_throttle_initial.into(),
                maximum: 99,
            });
        }
        if !new.xbzrle_cache_size.is_power_of_two() || new.xbzrle_cache_size < page_size {
            return Err(ParameterError::PowerOfTwo {
                name: "xbzrle-cache-size",
                minimum: page_size,
            });
        }
        if new.mode != MigrationMode::Normal {
            return Err(ParameterError::Choice {
                name: "mode",
                found: new.mode.name().to_owned(),
            });
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: impl Into<ParameterValue>) -> Result<(), String> {
        MigrationParameters::default()
            .changed(&[(name, value.into())], 4096)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_value_can_be_set_to_itself() {
        let parameters = MigrationParameters::default();
        let values = parameters.values();
        assert_eq!(values.len(), MigrationParameters::NAMES.len());
        let again = parameters.changed(&values, 4096).unwrap();
        assert_eq!(again, parameters);
    }

    #[test]
    fn ranges_hold_on_both_sides() {
        for (name, low, high) in [
            ("announce-initial", 0, 100_000),
            ("announce-rounds", 0, 1000),
            ("announce-step", 1, 10_000),
            ("throttle-trigger-threshold", 1, 100),
            ("cpu-throttle-increment", 1, 99),
            ("downtime-limit", 0, 2_000_000),
            ("multifd-channels", 1, 255),
            ("multifd-zlib-level", 0, 9),
            ("multifd-zstd-level", 0, 20),
            ("multifd-qatzip-level", 1, 9),
            ("max-cpu-throttle", 20, 99),
            ("x-vcpu-dirty-limit-period", 1, 1000),
        ] {
            assert_eq!(
                (check(name, low), check(name, high)),
                (Ok(()), Ok(())),
                "{name}"
            );
            assert!(check(name, high + 1).is_err(), "{name}");
            assert!(low == 0 || check(name, low - 1).is_err(), "{name}");
        }
        for value in [0, 1, u64::MAX] {
            assert_eq!(check("max-bandwidth", value), Ok(()));
        }
        assert_eq!(check("vcpu-dirty-limit", u64::MAX), Ok(()));
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (name, value, expected) in [
            (
                "tls-creds",
                "x".into(),
                "Parameter 'tls-creds' is not supported",
            ),
            (
                "max-bandwidth",
                "fast".into(),
                "Parameter 'max-bandwidth' expects an integer",
            ),
            (
                "direct-io",
                1.into(),
                "Parameter 'direct-io' expects a boolean",
            ),
            ("mode", true.into(), "Parameter 'mode' expects a string"),
            (
                "mode",
                "cpr-exec".into(),
                "Parameter 'mode' does not accept value 'cpr-exec'",
            ),
            (
                "multifd-compression",
                "lzo".into(),
                "Parameter 'multifd-compression' does not accept value 'lzo'",
            ),
            (
                "multifd-channels",
                256.into(),
                "Parameter 'multifd-channels' expects an integer in the range of 0 to 255",
            ),
            (
                "max-cpu-throttle",
                19.into(),
                "Parameter 'max-cpu-throttle' expects an integer in the range of 20 to 99",
            ),
            (
                "xbzrle-cache-size",
                2048.into(),
                "Parameter 'xbzrle-cache-size' expects a power of two of at least 4096",
            ),
            (
                "xbzrle-cache-size",
                8191.into(),
                "Parameter 'xbzrle-cache-size' expects a power of two of at least 4096",
            ),
        ] as [(&str, ParameterValue, &str); 10]
        {
            assert_eq!(check(name, value), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_set_is_judged_as_a_whole() {
        let parameters = MigrationParameters::default();
        let together = [
            ("max-cpu-throttle", 30.into()),
            ("cpu-throttle-initial", 30.into()),
        ];
        assert_eq!(
            parameters
                .changed(&together, 4096)
                .unwrap()
                .max_cpu_throttle,
            30
        );
        assert!(
            parameters
                .changed(
                    &[
                        ("cpu-throttle-initial", 99.into()),
                        ("max-cpu-throttle", 98.into())
                    ],
                    4096
                )
                .is_err()
        );
    }

    #[test]
    fn choices_have_qemus_names() {
        for name in MultifdCompression::NAMES {
            assert_eq!(
                MultifdCompression::from_name(name).map(MultifdCompression::name),
                Some(*name)
            );
            assert_eq!(check("multifd-compression", *name), Ok(()));
        }
        for name in ZeroPageDetection::NAMES {
            assert_eq!(
                ZeroPageDetection::from_name(name).map(ZeroPageDetection::name),
                Some(*name)
            );
        }
        assert_eq!(MigrationMode::default().name(), "normal");
        assert_eq!(ParameterValue::from(true).to_string(), "on");
        assert_eq!(
            ParameterValue::List(vec!["a".into(), "b".into()]).to_string(),
            "[a, b]"
        );
    }
}
