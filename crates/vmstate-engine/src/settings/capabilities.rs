//! Capabilities: switches that are off unless somebody sets them.

use std::fmt;

macro_rules! capabilities {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// A switch of a migration: QEMU's `MigrationCapability` with its names, in the order of
        /// `query-migrate-capabilities` of 11.1. Those that QEMU has removed are not here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Capability {
            $($(#[$meta])* $name,)*
        }

        impl Capability {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// QEMU's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

capabilities! {
    /// Pages travel as deltas.
    Xbzrle = "xbzrle",
    /// RDMA pins all memory.
    RdmaPinAll = "rdma-pin-all",
    /// vCPUs are throttled if memory gets dirty faster than it is sent.
    AutoConverge = "auto-converge",
    /// Status changes and rounds are QMP events.
    Events = "events",
    /// The guest may run at the destination before all RAM is there.
    PostcopyRam = "postcopy-ram",
    /// The guest runs on both sides, kept in step.
    XColo = "x-colo",
    /// The source frees pages once sent, in postcopy.
    ReleaseRam = "release-ram",
    /// The destination answers.
    ReturnPath = "return-path",
    /// The source waits for `migrate-continue` when the guest has been stopped.
    PauseBeforeSwitchover = "pause-before-switchover",
    /// RAM travels over several channels.
    Multifd = "multifd",
    /// Dirty bitmaps of disks travel.
    DirtyBitmaps = "dirty-bitmaps",
    /// The destination measures how long vCPUs wait for pages.
    PostcopyBlocktime = "postcopy-blocktime",
    /// The destination takes over disks late; without effect since 10.0.
    LateBlockActivate = "late-block-activate",
    /// RAM that is shared with the destination does not travel.
    XIgnoreShared = "x-ignore-shared",
    /// The machines' UUIDs must be equal.
    ValidateUuid = "validate-uuid",
    /// RAM is saved as it is at the beginning, while the guest runs on.
    BackgroundSnapshot = "background-snapshot",
    /// The kernel sends pages without copying them.
    ZeroCopySend = "zero-copy-send",
    /// Requested pages travel on a channel of their own.
    PostcopyPreempt = "postcopy-preempt",
    /// Devices at the destination approve the switchover.
    SwitchoverAck = "switchover-ack",
    /// vCPUs that write too much are throttled.
    DirtyLimit = "dirty-limit",
    /// Each page has a fixed place in the file.
    MappedRam = "mapped-ram",
}

impl Capability {
    /// The capability of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.name() == name)
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// What must be on with this one.
    const fn needs(self) -> &'static [Self] {
        match self {
            Self::ZeroCopySend => &[Self::Multifd],
            Self::PostcopyPreempt => &[Self::PostcopyRam],
            Self::SwitchoverAck | Self::XColo => &[Self::ReturnPath],
            _ => &[],
        }
    }

    /// What must not be on with this one. Each pair stands here once.
    const fn excludes(self) -> &'static [Self] {
        match self {
            Self::Xbzrle => &[Self::Multifd, Self::ZeroCopySend, Self::MappedRam],
            Self::AutoConverge => &[Self::DirtyLimit],
            Self::PostcopyRam => &[Self::XIgnoreShared, Self::MappedRam],
            Self::BackgroundSnapshot => &[
                Self::Xbzrle,
                Self::RdmaPinAll,
                Self::AutoConverge,
                Self::PostcopyRam,
                Self::XColo,
                Self::ReleaseRam,
                Self::ReturnPath,
                Self::PauseBeforeSwitchover,
                Self::Multifd,
                Self::DirtyBitmaps,
                Self::PostcopyBlocktime,
                Self::LateBlockActivate,
                Self::XIgnoreShared,
                Self::ValidateUuid,
                Self::ZeroCopySend,
            ],
            _ => &[],
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which capabilities are on. The default: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u32);

impl Capabilities {
    /// These and no others. Nothing is checked.
    #[must_use]
    pub fn of(on: &[Capability]) -> Self {
        Self(on.iter().fold(0, |bits, one| bits | one.bit()))
    }

    /// Whether a capability is on.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// Those that are on, in QEMU's order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL
            .iter()
            .copied()
            .filter(move |one| self.has(*one))
    }

    /// Applies a set of changes as a whole: all or nothing, in any order.
    ///
    /// ```
    /// use vmstate_engine::{Capabilities, Capability, Supported};
    ///
    /// let none = Capabilities::default();
    /// let on = none.changed(&[(Capability::AutoConverge, true)], &Supported::default())?;
    /// assert!(on.has(Capability::AutoConverge));
    /// let refused = on.changed(&[(Capability::SwitchoverAck, true)], &Supported::default());
    /// assert_eq!(
    ///     refused.unwrap_err().to_string(),
    ///     "Capability 'switchover-ack' requires capability 'return-path'"
    /// );
    /// # Ok::<(), vmstate_engine::CapabilityError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CapabilityError`]: one that is switched on is not supported, or lacks what it needs, or two that are on exclude each
    /// other.
    pub fn changed(
        self,
        changes: &[(Capability, bool)],
        supported: &Supported,
    ) -> Result<Self, CapabilityError> {
        let mut new = self;
        for (capability, on) in changes {
            if *on && !supported.0.has(*capability) {
                return Err(CapabilityError::Unsupported(*capability));
            }
            if *on {
                new.0 |= capability.bit();
            } else {
                new.0 &= !capability.bit();
            }
        }
        new.check()?;
        Ok(new)
    }

    fn check(self) -> Result<(), CapabilityError> {
        for one in self.iter() {
            if let Some(needed) = one.needs().iter().find(|needed| !self.has(**needed)) {
                return Err(CapabilityError::Needs(one, *needed));
            }
            if let Some(other) = one.excludes().iter().find(|other| self.has(**other)) {
                return Err(CapabilityError::Excludes(one, *other));
            }
        }
        Ok(())
    }
}

/// The capabilities that a machine can do. What is not here is refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supported(pub Capabilities);

impl Default for Supported {
    /// What this engine does by itself, with no help from the machine.
    fn default() -> Self {
        Self(Capabilities::of(&[
            Capability::AutoConverge,
            Capability::Events,
            Capability::ReturnPath,
            Capability::PauseBeforeSwitchover,
            Capability::LateBlockActivate,
            Capability::ValidateUuid,
            Capability::SwitchoverAck,
            Capability::PostcopyRam,
            Capability::PostcopyPreempt,
            Capability::PostcopyBlocktime,
        ]))
    }
}

/// A change of capabilities was refused; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// This machine cannot do it.
    #[error("Capability '{0}' is not supported")]
    Unsupported(Capability),
    /// The first needs the second.
    #[error("{}", needs(*.0, *.1))]
    Needs(Capability, Capability),
    /// The two exclude each other.
    #[error("{}", excludes(*.0, *.1))]
    Excludes(Capability, Capability),
}

/// In QEMU's words, which are not the same for all.
fn needs(one: Capability, other: Capability) -> String {
    match one {
        Capability::PostcopyPreempt => format!("Postcopy preempt requires {other}"),
        Capability::ZeroCopySend => {
            "Zero copy only available for non-compressed non-TLS multifd migration".to_owned()
        }
        _ => format!("Capability '{one}' requires capability '{other}'"),
    }
}

/// In QEMU's words, which are not the same for all.
fn excludes(one: Capability, other: Capability) -> String {
    match (one, other) {
        (Capability::PostcopyRam, Capability::XIgnoreShared) => {
            "Postcopy is not compatible with ignore-shared".to_owned()
        }
        (Capability::PostcopyRam, Capability::MappedRam) => {
            "Mapped-ram migration is incompatible with postcopy".to_owned()
        }
        (Capability::Xbzrle, Capability::MappedRam) => {
            "Mapped-ram migration is incompatible with xbzrle".to_owned()
        }
        (Capability::Xbzrle, Capability::Multifd) => {
            "Multifd is not compatible with xbzrle".to_owned()
        }
        (Capability::BackgroundSnapshot, other) => {
            format!("Background-snapshot is not compatible with {other}")
        }
        _ => format!("Capability '{one}' is not compatible with capability '{other}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Supported = Supported(Capabilities(u32::MAX));

    fn check(on: &[Capability]) -> Result<Capabilities, CapabilityError> {
        let changes: Vec<_> = on.iter().map(|one| (*one, true)).collect();
        Capabilities::default().changed(&changes, &ALL)
    }

    #[test]
    fn names_and_order() {
        for one in Capability::ALL {
            assert_eq!(Capability::from_name(one.name()), Some(*one));
        }
        assert_eq!(Capability::ALL.len(), 21);
        assert_eq!(Capability::from_name("compress"), None);
        let some = Capabilities::of(&[Capability::MappedRam, Capability::Xbzrle]);
        let names: Vec<_> = some.iter().map(Capability::name).collect();
        assert_eq!(names, ["xbzrle", "mapped-ram"]);
    }

    #[test]
    fn pairs_are_judged_together() {
        use Capability as C;
        check(&[C::Multifd, C::MappedRam]).unwrap();
        check(&[C::ZeroCopySend, C::Multifd]).unwrap();
        check(&[C::PostcopyRam, C::Multifd]).unwrap();
        for (pair, expected) in [
            (
                [C::Xbzrle, C::Multifd],
                CapabilityError::Excludes(C::Xbzrle, C::Multifd),
            ),
            (
                [C::MappedRam, C::PostcopyRam],
                CapabilityError::Excludes(C::PostcopyRam, C::MappedRam),
            ),
            (
                [C::DirtyLimit, C::AutoConverge],
                CapabilityError::Excludes(C::AutoConverge, C::DirtyLimit),
            ),
            (
                [C::Events, C::PostcopyPreempt],
                CapabilityError::Needs(C::PostcopyPreempt, C::PostcopyRam),
            ),
        ] {
            assert_eq!(check(&pair), Err(expected));
        }
        for one in C::ALL
            .iter()
            .filter(|one| !C::BackgroundSnapshot.excludes().contains(one))
        {
            let needs = one
                .needs()
                .iter()
                .any(|n| C::BackgroundSnapshot.excludes().contains(n));
            let with = check(&[&[C::BackgroundSnapshot, *one], one.needs()].concat());
            assert_eq!(with.is_err(), needs, "{one}");
        }
    }

    #[test]
    fn refusals_are_worded_as_qemus() {
        use Capability as C;
        for (on, expected) in [
            (
                &[C::PostcopyPreempt][..],
                "Postcopy preempt requires postcopy-ram",
            ),
            (
                &[C::PostcopyRam, C::XIgnoreShared],
                "Postcopy is not compatible with ignore-shared",
            ),
            (
                &[C::PostcopyRam, C::MappedRam],
                "Mapped-ram migration is incompatible with postcopy",
            ),
            (
                &[C::PostcopyRam, C::BackgroundSnapshot],
                "Background-snapshot is not compatible with postcopy-ram",
            ),
            (
                &[C::PostcopyBlocktime, C::BackgroundSnapshot],
                "Background-snapshot is not compatible with postcopy-blocktime",
            ),
            (
                &[C::Xbzrle, C::MappedRam],
                "Mapped-ram migration is incompatible with xbzrle",
            ),
            (
                &[C::Xbzrle, C::Multifd],
                "Multifd is not compatible with xbzrle",
            ),
            (
                &[C::ZeroCopySend],
                "Zero copy only available for non-compressed non-TLS multifd migration",
            ),
        ] {
            assert_eq!(check(on).unwrap_err().to_string(), expected);
        }
        check(&[C::PostcopyBlocktime]).unwrap();
        check(&[C::PostcopyRam, C::PostcopyPreempt, C::Multifd]).unwrap();
    }

    #[test]
    fn changes_are_all_or_nothing() {
        use Capability as C;
        let on = Capabilities::of(&[C::ReturnPath, C::SwitchoverAck]);
        let refused = on.changed(&[(C::ReturnPath, false)], &Supported::default());
        assert_eq!(
            refused,
            Err(CapabilityError::Needs(C::SwitchoverAck, C::ReturnPath))
        );
        let both = [(C::ReturnPath, false), (C::SwitchoverAck, false)];
        assert_eq!(
            on.changed(&both, &Supported::default()),
            Ok(Capabilities::default())
        );
        let refused = on.changed(&[(C::Multifd, true)], &Supported::default());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "Capability 'multifd' is not supported"
        );
        assert_eq!(
            on.changed(&[(C::Multifd, false)], &Supported::default()),
            Ok(on)
        );
    }
}
