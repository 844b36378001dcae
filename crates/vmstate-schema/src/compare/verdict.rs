//! How bad a difference is: per direction and per format.

use std::fmt;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Severity {
    /// Not at all.
    #[default]
    Ok,
    /// Loads, but somebody may want to know.
    Note,
    /// Cannot be decided from what the two files say.
    Suspect,
    /// Depends on values: on whether a conditional part is sent, on whether a number fits.
    Value,
    /// Does not load, or loads something else than was saved.
    Break,
}

impl Severity {
    /// The name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Suspect => "suspect",
            Self::Value => "value",
            Self::Break => "break",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which way a guest moves, and in which format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// FROM writes a QEMU stream, TO reads it.
    QemuForward,
    /// TO writes a QEMU stream, FROM reads it.
    QemuBackward,
    /// FROM writes BER, TO reads it.
    BerForward,
    /// TO writes BER, FROM reads it.
    BerBackward,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::QemuForward,
        Self::QemuBackward,
        Self::BerForward,
        Self::BerBackward,
    ];

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QemuForward => "qemu_forward",
            Self::QemuBackward => "qemu_backward",
            Self::BerForward => "ber_forward",
            Self::BerBackward => "ber_backward",
        }
    }
}

/// One severity for each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts([Severity; 4]);

impl Verdicts {
    /// In the order of [`Column::ALL`].
    #[must_use]
    pub const fn new(columns: [Severity; 4]) -> Self {
        Self(columns)
    }

    /// The severity of a column.
    #[must_use]
    pub const fn of(&self, column: Column) -> Severity {
        let [qemu_forward, qemu_backward, ber_forward, ber_backward] = self.0;
        match column {
            Column::QemuForward => qemu_forward,
            Column::QemuBackward => qemu_backward,
            Column::BerForward => ber_forward,
            Column::BerBackward => ber_backward,
        }
    }

    /// The worst of all columns.
    #[must_use]
    pub fn worst(&self) -> Severity {
        self.0.into_iter().max().unwrap_or_default()
    }

    /// Takes the worse of both, column by column.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut columns = self.0;
        for (mine, theirs) in columns.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
        Self(columns)
    }
}
