//! What a reader expects of a stream, and what a writer puts into it.

use super::command::CommandId;

/// Whether a part of the framing is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// Look at the bytes: the parts concerned cannot be mistaken for anything else.
    #[default]
    Detect,
    /// It must be there.
    Required,
    /// It must not be there.
    Absent,
}

impl From<bool> for Presence {
    fn from(on: bool) -> Self {
        if on { Self::Required } else { Self::Absent }
    }
}

/// Bounds on what a stream may ask of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest machine name in bytes. Default 255.
    pub machine_name: u32,
    /// Most capabilities in the configuration section. Default 256.
    pub capabilities: u32,
    /// Most sections, counted by id. Default 65536.
    pub sections: usize,
    /// Largest package in bytes. Default 128 MiB.
    pub package: u32,
    /// Longest description trailer in bytes. Default 64 MiB.
    pub trailer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            machine_name: 255,
            capabilities: 256,
            sections: 65536,
            package: 128 << 20,
            trailer: 64 << 20,
        }
    }
}

/// How to read a stream. The default detects whatever can be detected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParserOptions {
    /// The configuration section after the header.
    pub configuration: Presence,
    /// The footer of every section. When detected, the first section decides for all.
    pub footers: Presence,
    /// The description trailer after the end-of-stream mark. When detected, a stream may end
    /// without it. Never read once the stream has switched to postcopy.
    pub trailer: Presence,
    /// Bounds.
    pub limits: Limits,
}

impl ParserOptions {
    /// The framing that stock QEMU insists on when it speaks `dialect`.
    ///
    /// A missing trailer is tolerated even where the dialect has one, because a stream that goes
    /// through postcopy has none.
    #[must_use]
    pub fn from_dialect(dialect: &Dialect) -> Self {
        Self {
            configuration: dialect.send_configuration.into(),
            footers: dialect.section_footer.into(),
            trailer: if dialect.suppress_vmdesc {
                Presence::Absent
            } else {
                Presence::Detect
            },
            limits: Limits::default(),
        }
    }
}

/// Who looks for zero pages; QEMU's parameter `zero-page-detection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroPageDetection {
    /// Nobody: zero pages travel as normal pages.
    None,
    /// The migration thread: zero pages travel on the main channel.
    Legacy,
    /// The multifd threads: zero pages travel in multifd packets.
    Multifd,
}

/// The switches with which machine types of different age differ on the wire.
///
/// Stock QEMU takes them from the version of the *machine type*, not from its own release nor from
/// the peer. Both ends decide for themselves and must agree.
///
/// Wire: properties of QEMU's `migration` object and their machine-type defaults in 11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each named after QEMU's property"
)]
pub struct Dialect {
    /// `store-global-state`: the section `globalstate` is sent. Off for machine types ≤ 2.3.
    pub store_global_state: bool,
    /// `send-configuration`: the configuration section is sent. Off ≤ 2.3.
    pub send_configuration: bool,
    /// `send-section-footer`: sections end with a footer. Off ≤ 2.3.
    pub section_footer: bool,
    /// `decompress-error-check`. Off ≤ 2.11.
    pub decompress_error_check: bool,
    /// `x-preempt-pre-7-2`: the preempt channel is opened at setup. On ≤ 7.2.
    pub preempt_pre_7_2: bool,
    /// `multifd-flush-after-each-section`: multifd synchronises at each end of a RAM section, not
    /// once per round. On ≤ 8.0.
    pub multifd_flush_after_each_section: bool,
    /// `zero-page-detection`. Legacy ≤ 8.2.
    pub zero_page_detection: ZeroPageDetection,
    /// `send-switchover-start`: the command `SWITCHOVER_START` is sent. Off ≤ 9.2.
    pub switchover_start: bool,
    /// `multifd-clean-tls-termination`: a multifd channel that ends without a TLS bye is an error.
    /// Off ≤ 9.2.
    pub multifd_clean_tls_termination: bool,
    /// `switchover-ack-legacy`: one acknowledgement for all devices. On ≤ 11.0.
    pub switchover_ack_legacy: bool,
    /// `suppress-vmdesc` (of the machine): no description trailer. On ≤ 2.2.
    pub suppress_vmdesc: bool,
}

impl Dialect {
    /// Machine types of 7.2.
    pub const QEMU_7_2: Self = Self::of_machine_version(7, 2);
    /// Machine types of 10.0.
    pub const QEMU_10_0: Self = Self::of_machine_version(10, 0);
    /// Machine types of 11.1, and machines without a version under 11.1.
    pub const QEMU_11_1: Self = Self::of_machine_version(11, 1);

    /// The dialect of a versioned machine type, such as 7 and 2 for `pc-q35-7.2`.
    #[must_use]
    pub const fn of_machine_version(major: u16, minor: u16) -> Self {
        Self {
            store_global_state: newer((major, minor), (2, 3)),
            send_configuration: newer((major, minor), (2, 3)),
            section_footer: newer((major, minor), (2, 3)),
            decompress_error_check: newer((major, minor), (2, 11)),
            preempt_pre_7_2: !newer((major, minor), (7, 2)),
            multifd_flush_after_each_section: !newer((major, minor), (8, 0)),
            zero_page_detection: if newer((major, minor), (8, 2)) {
                ZeroPageDetection::Multifd
            } else {
                ZeroPageDetection::Legacy
            },
            switchover_start: newer((major, minor), (9, 2)),
            multifd_clean_tls_termination: newer((major, minor), (9, 2)),
            switchover_ack_legacy: !newer((major, minor), (11, 0)),
            suppress_vmdesc: !newer((major, minor), (2, 2)),
        }
    }

    /// Whether a destination of this dialect is sure to know a command.
    ///
    /// `ENABLE_COLO` is known to nobody in this sense: QEMU refuses it since 11.0. Nor is `UPGRADE`, which QEMU does not know.
    #[must_use]
    pub fn allows(&self, command: CommandId) -> bool {
        match command {
            CommandId::SWITCHOVER_START => self.switchover_start,
            CommandId::ENABLE_COLO | CommandId::UPGRADE => false,
            other => other.name().is_some(),
        }
    }
}

const fn newer(version: (u16, u16), than: (u16, u16)) -> bool {
    version.0 > than.0 || (version.0 == than.0 && version.1 > than.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_differ_where_the_machine_types_do() {
        let old = Dialect::QEMU_7_2;
        assert!(old.send_configuration && old.section_footer && !old.suppress_vmdesc);
        assert!(old.preempt_pre_7_2 && old.multifd_flush_after_each_section);
        assert_eq!(old.zero_page_detection, ZeroPageDetection::Legacy);
        assert!(!old.switchover_start && !old.allows(CommandId::SWITCHOVER_START));

        let middle = Dialect::QEMU_10_0;
        assert!(middle.switchover_start && middle.switchover_ack_legacy);
        assert!(middle.multifd_clean_tls_termination && !middle.preempt_pre_7_2);
        assert_eq!(middle.zero_page_detection, ZeroPageDetection::Multifd);

        let new = Dialect::QEMU_11_1;
        assert_eq!(
            new,
            Dialect {
                switchover_ack_legacy: false,
                ..middle
            }
        );
        assert!(new.allows(CommandId::PING) && !new.allows(CommandId::ENABLE_COLO));
        assert!(!new.allows(CommandId(12)) && !new.allows(CommandId::UPGRADE));
    }

    #[test]
    fn thresholds_hold_on_both_sides() {
        let of = Dialect::of_machine_version;
        assert!(!of(2, 3).section_footer && of(2, 4).section_footer);
        assert!(of(2, 2).suppress_vmdesc && !of(2, 3).suppress_vmdesc);
        assert!(!of(2, 11).decompress_error_check && of(2, 12).decompress_error_check);
        assert!(!of(9, 2).switchover_start && of(10, 0).switchover_start);
        assert!(of(8, 0).multifd_flush_after_each_section);
        assert!(!of(8, 1).multifd_flush_after_each_section);
        assert!(of(11, 0).switchover_ack_legacy && !of(11, 1).switchover_ack_legacy);
    }

    #[test]
    fn parser_options_follow_the_dialect() {
        let ancient = ParserOptions::from_dialect(&Dialect::of_machine_version(2, 2));
        assert_eq!(ancient.configuration, Presence::Absent);
        assert_eq!(ancient.footers, Presence::Absent);
        assert_eq!(ancient.trailer, Presence::Absent);
        let new = ParserOptions::from_dialect(&Dialect::QEMU_11_1);
        assert_eq!(new.configuration, Presence::Required);
        assert_eq!(new.footers, Presence::Required);
        assert_eq!(new.trailer, Presence::Detect);
    }
}
