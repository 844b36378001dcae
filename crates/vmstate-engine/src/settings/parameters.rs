//! Parameters: tunable values with QEMU's names, units, ranges and defaults.

mod table;

use std::fmt;

pub use self::table::{MigrationParameters, ParameterError};

/// A parameter's value, as QMP carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterValue {
    /// A number: bytes, milliseconds, percent or a count, as the parameter says.
    Number(u64),
    /// A switch.
    Switch(bool),
    /// A text or the name of a choice. A JSON `null` is the empty text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl From<u64> for ParameterValue {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<bool> for ParameterValue {
    fn from(value: bool) -> Self {
        Self::Switch(value)
    }
}

impl From<&str> for ParameterValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => value.fmt(f),
            Self::Switch(value) => f.write_str(if *value { "on" } else { "off" }),
            Self::Text(value) => write!(f, "'{value}'"),
            Self::List(values) => write!(f, "[{}]", values.join(", ")),
        }
    }
}

macro_rules! choices {
    ($(#[$meta:meta])* $type:ident: $($(#[$one:meta])* $name:ident = $text:literal,)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$one])* $name,)*
        }

        impl $type {
            /// QEMU's names, in its order.
            pub const NAMES: &[&str] = &[$($text,)*];

            /// QEMU's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The choice of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

choices! {
    /// How multifd channels compress pages: QEMU's `MultiFDCompression`.
    MultifdCompression:
    /// Not at all.
    #[default]
    None = "none",
    /// zlib.
    Zlib = "zlib",
    /// zstd.
    Zstd = "zstd",
    /// Intel `QATzip`.
    Qatzip = "qatzip",
    /// Intel QPL.
    Qpl = "qpl",
    /// Huawei UADK.
    Uadk = "uadk",
}

choices! {
    /// Who looks for zero pages: QEMU's `ZeroPageDetection`.
    ZeroPageDetection:
    /// Nobody.
    None = "none",
    /// The migration thread.
    Legacy = "legacy",
    /// The threads of the multifd channels; without multifd the same as `legacy`.
    #[default]
    Multifd = "multifd",
}

choices! {
    /// What kind of migration: QEMU's `MigMode`.
    MigrationMode:
    /// The guest moves.
    #[default]
    Normal = "normal",
    /// The guest is saved across a reboot of its host.
    CprReboot = "cpr-reboot",
    /// The guest moves to another process, its memory stays.
    CprTransfer = "cpr-transfer",
    /// The guest stays in its process, which executes another program.
    CprExec = "cpr-exec",
}

choices! {
    /// Which format the main channel has. A parameter of our own: QEMU has none of this name.
    Peer:
    /// Asks the other end, and speaks VM state over BER if that does, else QEMU's stream. A destination takes either.
    #[default]
    Auto = "auto",
    /// The other end is one of ours: VM state over BER.
    Vmstate = "vmstate",
    /// The other end may be QEMU: its stream.
    Qemu = "qemu",
    /// Asks the other end as `auto` does, and goes on only if it speaks VM state over BER.
    Ber = "ber",
}
