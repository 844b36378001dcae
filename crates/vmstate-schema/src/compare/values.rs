//! Findings that depend on values, settled by values.

use std::collections::HashMap;
use std::fmt;

use vmstate_desc::{Error, SaveState};

use super::rules::Rule;
use super::verdict::{Column, Severity, Verdicts};
use super::{Comparison, Finding};
use crate::validate::{Answer, validate};

/// What FROM's values must be like for a difference to do no harm on the way to TO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The field or subsection, by FROM's names: `queues/size`, `{nvme/more}/x`. Elements of arrays have one path.
    pub path: String,
    /// What must hold.
    pub condition: Condition,
}

/// What must hold of all values at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Numbers lie between these two, both included.
    Range {
        /// The least.
        minimum: i128,
        /// The greatest.
        maximum: i128,
    },
    /// There are no more elements than this; bytes of a buffer, bits of a bitmap.
    AtMost(u64),
    /// There are just so many elements, bytes or bits.
    Exactly(u64),
    /// No element of an array of pointers is absent.
    NoneAbsent,
    /// No bit of a bitmap is set from this one on.
    BitsBelow(u64),
    /// There is no such field or subsection in this state.
    NotSent,
    /// The field is there in this state.
    Sent,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { minimum, maximum } => write!(f, "{minimum} to {maximum}"),
            Self::AtMost(n) => write!(f, "at most {n} elements"),
            Self::Exactly(n) => write!(f, "{n} elements"),
            Self::NoneAbsent => f.write_str("no absent element"),
            Self::BitsBelow(n) => write!(f, "no bit set from bit {n} on"),
            Self::NotSent => f.write_str("that it is not sent"),
            Self::Sent => f.write_str("that it is sent"),
        }
    }
}

impl Test {
    pub(super) fn new(condition: Condition) -> Self {
        Self {
            path: String::new(),
            condition,
        }
    }

    /// The same test of a part.
    pub(super) fn below(&self, part: &str) -> Self {
        Self {
            path: super::walk::joined(part, &self.path),
            condition: self.condition,
        }
    }
}

impl Comparison {
    /// Settles by FROM's values what depends on them in the direction from FROM to TO: such a verdict becomes `ok` or `break`.
    /// `states` are the values, by the name of the section. Sections without values keep their verdicts, and so do checks against
    /// what only TO's machine knows.
    ///
    /// # Errors
    /// State that cannot be walked.
    pub fn settle(&mut self, states: &HashMap<String, &dyn SaveState>) -> Result<(), Error> {
        let mut by_section: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, finding) in self.findings.iter().enumerate() {
            if finding.is_open() && states.contains_key(&finding.section) {
                by_section
                    .entry(finding.section.clone())
                    .or_default()
                    .push(number);
            }
        }
        for (section, numbers) in by_section {
            let Some(state) = states.get(&section) else {
                continue;
            };
            let tests = numbers
                .iter()
                .filter_map(|number| self.findings.get(*number)?.test.clone());
            let tests: Vec<Test> = tests.collect();
            let answers = validate(*state, &tests).map_err(|e| e.in_section(section.clone()))?;
            for (number, answer) in numbers.iter().zip(answers) {
                if let Some(finding) = self.findings.get_mut(*number) {
                    finding.settle(&answer);
                }
            }
        }
        Ok(())
    }
}

impl Finding {
    /// Whether values decide about it, in one of the formats.
    fn is_open(&self) -> bool {
        let forward = [Column::QemuForward, Column::BerForward];
        self.test.is_some() && forward.into_iter().any(|column| self.depends(column))
    }

    fn depends(&self, column: Column) -> bool {
        match self.verdicts.of(column) {
            Severity::Value => true,
            // What cannot be told of types can be of values.
            Severity::Suspect => matches!(self.rule, Rule::C11 | Rule::C29),
            _ => false,
        }
    }

    fn settle(&mut self, answer: &Answer) {
        let settled = if answer.holds {
            Severity::Ok
        } else {
            Severity::Break
        };
        self.verdicts = Verdicts::new(Column::ALL.map(|column| {
            let forward = matches!(column, Column::QemuForward | Column::BerForward);
            if forward && self.depends(column) {
                settled
            } else {
                self.verdicts.of(column)
            }
        }));
        self.values = Some(answer.values.clone());
    }
}
