//! Findings that depend on values, settled by values.

use std::collections::HashMap;
use std::fmt;

use vmstate_desc::{Error, SaveState};

use super::rules::Rule;
use super::verdict::{Column, Severity, Verdicts};
use super::{Comparison, Finding};
use crate::validate::{Answer, only_numbers, validate};

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
    /// Numbers are what TO's machine has at the same place.
    EqualsOwn,
    /// Numbers lie between 0 and what TO's machine has at the same place.
    UpToOwn,
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
            Self::EqualsOwn => f.write_str("the destination's own value"),
            Self::UpToOwn => f.write_str("0 to the destination's own value"),
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

    /// Whether it is against what only TO's values tell.
    const fn is_against_own(&self) -> bool {
        matches!(self.condition, Condition::EqualsOwn | Condition::UpToOwn)
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
    /// what only TO's machine knows; [`Finding::undecided`] says why.
    ///
    /// # Errors
    /// State that cannot be walked.
    pub fn settle(&mut self, states: &HashMap<String, &dyn SaveState>) -> Result<(), Error> {
        self.settle_between(states, &HashMap::new())
    }

    /// As [`Comparison::settle`], with the values of TO, too: of a machine that was started as for the migration, against whose own
    /// values loading checks.
    ///
    /// # Errors
    /// State that cannot be walked.
    pub fn settle_between(
        &mut self,
        from: &HashMap<String, &dyn SaveState>,
        to: &HashMap<String, &dyn SaveState>,
    ) -> Result<(), Error> {
        self.know_own(to)?;
        let mut by_section: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, finding) in self.findings.iter().enumerate() {
            if finding.is_open() && from.contains_key(&finding.section) {
                by_section
                    .entry(finding.section.clone())
                    .or_default()
                    .push(number);
            }
        }
        for (section, numbers) in by_section {
            let Some(state) = from.get(&section) else {
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
        for finding in &mut self.findings {
            if from.contains_key(&finding.section) {
                finding.undecided = finding.reason();
            }
        }
        Ok(())
    }

    /// Puts TO's own values into the tests that are against them.
    fn know_own(&mut self, to: &HashMap<String, &dyn SaveState>) -> Result<(), Error> {
        let mut by_section: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, finding) in self.findings.iter().enumerate() {
            let own = finding.test.as_ref().is_some_and(Test::is_against_own);
            if own && to.contains_key(&finding.section) {
                let numbers = by_section.entry(finding.section.clone());
                numbers.or_default().push(number);
            }
        }
        for (section, numbers) in by_section {
            let Some(state) = to.get(&section) else {
                continue;
            };
            // A finding's path is by TO's names, its test's by FROM's.
            let paths = numbers
                .iter()
                .filter_map(|number| Some(self.findings.get(*number)?.path.as_str()));
            let paths: Vec<&str> = paths.collect();
            let own = only_numbers(*state, &paths).map_err(|e| e.in_section(section.clone()))?;
            for (number, own) in numbers.iter().zip(own) {
                let test = self.findings.get_mut(*number).and_then(|f| f.test.as_mut());
                if let (Some(test), Some(own)) = (test, own) {
                    let minimum = match test.condition {
                        Condition::UpToOwn => 0,
                        _ => own,
                    };
                    test.condition = Condition::Range {
                        minimum,
                        maximum: own,
                    };
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
        let known = self
            .test
            .as_ref()
            .is_some_and(|test| !test.is_against_own());
        known && forward.into_iter().any(|column| self.depends(column))
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

    /// Why the values did not settle it, and what would.
    fn reason(&self) -> Option<&'static str> {
        let forward = [Column::QemuForward, Column::BerForward];
        let open = forward.into_iter().any(|column| {
            matches!(
                self.verdicts.of(column),
                Severity::Value | Severity::Suspect
            )
        });
        if self.values.is_some() || !open {
            return None;
        }
        Some(match self.rule {
            Rule::C03 => {
                "the destination decides by a condition of its own whether it reads the field: give a stream of its machine as TO, which has the field or has it not"
            }
            Rule::C12 => {
                "TO says how large it is in memory, not what of it travels: give a stream of its machine as TO"
            }
            Rule::C13 | Rule::C14 => {
                "the destination's machine counts by itself: configure the same number on both sides, or give a stream of its machine as TO"
            }
            Rule::C24 => {
                "loading checks against the destination's own value: give a stream of its machine, started as for the migration, as TO"
            }
            _ => return None,
        })
    }
}
