//! The probe: is the destination one of ours?
//!
//! ```text
//! source → destination                         destination → source
//! header, configuration, OPEN_RETURN_PATH
//! PING VMSP                                    PONG VMSP
//! PING VMSF                                    PONG VMSA, only from a destination that allows the upgrade
//!                                              PONG VMSF
//! UPGRADE, only if VMSA came before VMSF
//! ```
//!
//! Every QEMU with a return path answers a PING with its value, and a source of QEMU's never asks with these values: neither is told
//! anything that it does not know. The fence decides, no timer does.

/// Value of the PING that asks: "VMSP".
pub const PROBE: u32 = 0x564d_5350;
/// Value of the PONG that nobody has asked for, between the two: "VMSA", the destination allows the upgrade.
pub const ALLOWED: u32 = 0x564d_5341;
/// Value of the PING behind it, the fence: "VMSF". What has not been said before its PONG is not said.
pub const FENCE: u32 = 0x564d_5346;

/// How far a destination has come with an upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// This end does not know how, or does not want to; or it is too late.
    #[default]
    Never,
    /// A source that asks is told so.
    Possible,
    /// It has been told.
    Offered,
}
