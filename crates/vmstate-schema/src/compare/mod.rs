//! Comparing two schemas by rules: can one load what the other writes?
//!
//! FROM is the older side by convention, TO the newer one. Each finding has a verdict for both directions and both formats, since
//! one and the same difference can be harmless in BER and fatal in a QEMU stream.
//!
//! ```
//! use vmstate_desc::{Codec, Description, Field};
//! use vmstate_schema::compare::{Column, Options, Rule, Severity, compare};
//! use vmstate_schema::Schema;
//!
//! static OLD: Description =
//!     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
//! static NEW: Description =
//!     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint32)] });
//! let (old, new) = (Schema::of(None, [&OLD])?, Schema::of(None, [&NEW])?);
//! let comparison = compare(&old, &new, &Options::default());
//! let finding = &comparison.findings[0];
//! assert_eq!(finding.rule, Rule::C08);
//! assert_eq!(finding.to_string(), "C08 rtc/0: year: number widened: uint16 -> uint32");
//! assert_eq!(finding.verdicts.of(Column::QemuForward), Severity::Break);
//! assert_eq!(finding.verdicts.of(Column::BerForward), Severity::Ok);
//! # Ok::<(), vmstate_desc::Error>(())
//! ```

mod align;
mod elements;
mod fields;
mod gaps;
mod glob;
mod inside;
mod names;
mod rules;
mod sections;
#[cfg(test)]
mod tests;
mod values;
mod variants;
mod verdict;
mod walk;

use std::fmt;

pub(crate) use glob::matches_glob;
pub use rules::Rule;
pub use values::{Condition, Test};
pub use verdict::{Column, Severity, Verdicts};

use crate::model::Schema;

/// Most findings that are kept for one pair of sections.
pub const MAX_FINDINGS: usize = 2_000;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compare only sections whose name one of these patterns with `*` and `?` matches. Empty: all.
    pub sections: Vec<String>,
}

/// Something in which two schemas differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The section or device class.
    pub section: String,
    /// Where in it: `queues/size`, `{nvme/more}/x`. Empty: the whole.
    pub path: String,
    /// What FROM has.
    pub from: String,
    /// What TO has.
    pub to: String,
    /// What it means.
    pub verdicts: Verdicts,
    /// By which of FROM's values it can be settled on the way to TO.
    pub test: Option<Test>,
    /// What these values are, if it was settled by them.
    pub values: Option<String>,
    /// Where values were looked at and did not settle it: why, and what would.
    pub undecided: Option<&'static str>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.rule, self.section)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}: {} -> {}", self.rule.title(), self.from, self.to)?;
        match &self.values {
            Some(values) => write!(f, " ({values})"),
            None => Ok(()),
        }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Sections, or device classes, that both sides have.
    pub compared: usize,
    /// Those of them that are equal in all that is known.
    pub equal: usize,
    /// Of these, the ones whose digests are the same (C00), so that nothing was left to compare. What is equal without being here
    /// differs in what no side can tell: a stream beside a dump.
    pub identical: Vec<Finding>,
    /// The findings, section by section, in wire order.
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`] of a section, which are not kept.
    pub left_out: usize,
}

impl Comparison {
    /// The worst verdict of a column.
    #[must_use]
    pub fn verdict(&self, column: Column) -> Severity {
        let verdicts = self.findings.iter().map(|f| f.verdicts.of(column));
        let worst = verdicts.max().unwrap_or_default();
        // What is not looked at is not known to be good.
        if self.left_out > 0 {
            worst.max(Severity::Suspect)
        } else {
            worst
        }
    }
}

/// Compares two schemas.
#[must_use]
pub fn compare(from: &Schema, to: &Schema, options: &Options) -> Comparison {
    sections::compare(from, to, options)
}
