//! Findings that are known and accepted: an exception file.
//!
//! JSON, one object:
//!
//! ```json
//! { "format": "vmstate-exceptions/1",
//!   "exceptions": [
//!     { "rule": "C07", "section": "hpet*", "path": "num_timers*", "direction": "forward",
//!       "reason": "the same number, saved from a copy" } ] }
//! ```
//!
//! `section` and `path` are patterns with `*` and `?`; what is left out fits everything. `direction` is `forward`, `backward` or
//! both. Each exception has a reason. A finding that one fits counts no more in these directions, but is shown; an exception that
//! fits nothing is told, too, since it may hide the next mistake.

use serde::Deserialize;

use crate::compare::{Column, Comparison, Finding, Rule, Severity, Verdicts, matches_glob};
use crate::tree::{JsonError, parse_json};

/// The name of the form.
pub const FORMAT: &str = "vmstate-exceptions/1";

/// Most memory that a file may take, in bytes.
const MEMORY: usize = 16 << 20;

/// Why a text is not an exception file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExceptionsError {
    /// Not JSON.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("not an exception file: {0}")]
    Shape(String),
    /// A rule that there is not.
    #[error("exception {number}: there is no rule {rule:?}")]
    Rule {
        /// Position in the file, from 0.
        number: usize,
        /// What stands there.
        rule: String,
    },
    /// A reason that is none.
    #[error("exception {number}: say why in \"reason\"")]
    Reason {
        /// Position in the file, from 0.
        number: usize,
    },
}

/// The directions that an exception is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// FROM writes, TO reads.
    Forward,
    /// TO writes, FROM reads.
    Backward,
    /// Either.
    #[default]
    Both,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    exceptions: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    rule: String,
    #[serde(default = "anything")]
    section: String,
    #[serde(default = "anything")]
    path: String,
    #[serde(default)]
    direction: Direction,
    reason: String,
}

fn anything() -> String {
    "*".to_owned()
}

/// One exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The rule.
    pub rule: Rule,
    /// Pattern of the section.
    pub section: String,
    /// Pattern of the path in it.
    pub path: String,
    /// In which directions.
    pub direction: Direction,
    /// Why.
    pub reason: String,
}

/// A file of exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

/// What exceptions did to a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Findings that were accepted, as they were, with the reasons.
    pub findings: Vec<(Finding, String)>,
    /// Exceptions that fit nothing.
    pub unused: Vec<Exception>,
}

impl Exception {
    fn fits(&self, finding: &Finding) -> bool {
        let matches = |glob: &str, text: &str| matches_glob(glob.as_bytes(), text.as_bytes());
        self.rule == finding.rule
            && matches(&self.section, &finding.section)
            && matches(&self.path, &finding.path)
    }

    const fn covers(&self, column: Column) -> bool {
        let forward = matches!(column, Column::QemuForward | Column::BerForward);
        match self.direction {
            Direction::Both => true,
            Direction::Forward => forward,
            Direction::Backward => !forward,
        }
    }
}

impl Exceptions {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Text of another form, rules that there are not, and exceptions without a reason.
    pub fn from_text(text: &[u8]) -> Result<Self, ExceptionsError> {
        let json = parse_json(text, MEMORY)?;
        let file: File =
            serde_json::from_value(json).map_err(|e| ExceptionsError::Shape(e.to_string()))?;
        if file.format != FORMAT {
            let what = format!("its format is {:?}, not {FORMAT:?}", file.format);
            return Err(ExceptionsError::Shape(what));
        }
        let exceptions = file.exceptions.into_iter().enumerate();
        exceptions
            .map(|(number, line)| {
                let rule = Rule::by_id(&line.rule);
                let rule = rule.ok_or(ExceptionsError::Rule {
                    number,
                    rule: line.rule,
                })?;
                if line.reason.trim().is_empty() {
                    return Err(ExceptionsError::Reason { number });
                }
                Ok(Exception {
                    rule,
                    section: line.section,
                    path: line.path,
                    direction: line.direction,
                    reason: line.reason,
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Takes what is accepted out of a comparison: the verdicts of the directions that an exception covers become `ok`.
    pub fn apply(&self, comparison: &mut Comparison) -> Accepted {
        let mut used = vec![false; self.0.len()];
        let mut accepted = Accepted::default();
        for finding in &mut comparison.findings {
            for (exception, used) in self.0.iter().zip(&mut used) {
                if !exception.fits(finding) {
                    continue;
                }
                *used = true;
                let before = finding.clone();
                let columns = Column::ALL.map(|column| {
                    if exception.covers(column) {
                        Severity::Ok
                    } else {
                        finding.verdicts.of(column)
                    }
                });
                finding.verdicts = Verdicts::new(columns);
                if finding.verdicts != before.verdicts {
                    accepted.findings.push((before, exception.reason.clone()));
                }
            }
        }
        let unused = self.0.iter().zip(used).filter(|(_, used)| !used);
        accepted.unused = unused.map(|(exception, _)| exception.clone()).collect();
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rule: Rule, section: &str, path: &str) -> Finding {
        Finding {
            rule,
            section: section.to_owned(),
            path: path.to_owned(),
            from: String::new(),
            to: String::new(),
            verdicts: Verdicts::new([Severity::Break; 4]),
            test: None,
            values: None,
            undecided: None,
        }
    }

    #[test]
    fn accepted_findings_count_no_more() {
        let text = br#"{"format": "vmstate-exceptions/1", "exceptions": [
            {"rule": "C07", "section": "hpet*", "direction": "forward", "reason": "a copy"},
            {"rule": "C12", "reason": "never"}]}"#;
        let exceptions = Exceptions::from_text(text).unwrap();
        let mut comparison = Comparison {
            findings: vec![
                finding(Rule::C07, "hpet/0", "num"),
                finding(Rule::C07, "rtc/0", "num"),
                finding(Rule::C08, "hpet/0", "num"),
            ],
            ..Comparison::default()
        };
        let accepted = exceptions.apply(&mut comparison);
        let [first, second, third] = comparison.findings.as_slice() else {
            panic!("findings do not go away");
        };
        assert_eq!(first.verdicts.of(Column::QemuForward), Severity::Ok);
        assert_eq!(first.verdicts.of(Column::BerForward), Severity::Ok);
        assert_eq!(first.verdicts.of(Column::QemuBackward), Severity::Break);
        assert_eq!(second.verdicts.worst(), Severity::Break);
        assert_eq!(third.verdicts.worst(), Severity::Break);
        assert_eq!(accepted.findings.len(), 1);
        assert_eq!(accepted.findings[0].1, "a copy");
        assert_eq!(accepted.unused.len(), 1);
        assert_eq!(accepted.unused[0].rule, Rule::C12);
    }

    #[test]
    fn files_that_are_refused() {
        let refusal = |text: &str| {
            let text = text.replace('F', "\"format\":\"vmstate-exceptions/1\"");
            Exceptions::from_text(text.as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(refusal("[]").contains("not an exception file"));
        assert!(refusal(r#"{"format":"x/1","exceptions":[]}"#).contains("x/1"));
        assert!(refusal(r#"{F,"exceptions":[{"rule":"C99","reason":"x"}]}"#).contains("C99"));
        assert!(refusal(r#"{F,"exceptions":[{"rule":"C07","reason":" "}]}"#).contains("say why"));
        assert!(refusal(r#"{F,"exceptions":[{"rule":"C07"}]}"#).contains("reason"));
        assert!(refusal(r#"{F,"exceptions":[],"x":1}"#).contains("`x`"));
    }
}
