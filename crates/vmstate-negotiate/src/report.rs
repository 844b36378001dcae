//! What came of a negotiation, in words.

use std::fmt;

use vmstate_ber::frame::{Finding, Severity};

use crate::rules::advice;

/// What the destination says about a migration, for people. Both ends print the same.
///
/// ```
/// use vmstate_ber::frame::{Finding, Severity};
/// use vmstate_negotiate::Report;
///
/// let report = Report {
///     refused: true,
///     findings: vec![Finding {
///         severity: Severity::Error,
///         rule: "C10".to_owned(),
///         path: "rtc#0: year".to_owned(),
///         expected: Some("bytes(2)".to_owned()),
///         found: Some("uint16".to_owned()),
///         text: Some("kind changed".to_owned()),
///     }],
/// };
/// let text = report.to_string();
/// let mut lines = text.lines();
/// assert_eq!(
///     lines.next(),
///     Some("migration refused before any guest page was sent (1 error)")
/// );
/// assert_eq!(lines.next(), Some(" error   C10  rtc#0: year"));
/// assert_eq!(
///     lines.next(),
///     Some("              kind changed: source uint16, destination bytes(2)")
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// No is the answer.
    pub refused: bool,
    /// Why, or what to know; the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let same = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(same).count()
    }

    /// The first line.
    #[must_use]
    pub fn summary(&self) -> String {
        let head = match self.refused {
            true => "migration refused before any guest page was sent",
            false => "migration accepted by the destination",
        };
        let counts: Vec<_> = [
            (Severity::Error, "error", "errors"),
            (Severity::Warning, "warning", "warnings"),
            (Severity::Info, "remark", "remarks"),
        ]
        .into_iter()
        .filter_map(|(severity, one, many)| match self.count(severity) {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        })
        .collect();
        match counts.is_empty() {
            true => head.to_owned(),
            false => format!("{head} ({})", counts.join(", ")),
        }
    }
}

/// Text of a peer's, which must not move the cursor.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "remark",
            };
            let (rule, path) = (clean(&finding.rule), clean(&finding.path));
            write!(f, "\n {severity:7} {rule:4} {path}")?;
            let values = match (&finding.found, &finding.expected) {
                (Some(source), Some(destination)) => {
                    format!(
                        "source {}, destination {}",
                        clean(source),
                        clean(destination)
                    )
                }
                (Some(source), None) => format!("source {}", clean(source)),
                (None, Some(destination)) => format!("destination {}", clean(destination)),
                (None, None) => String::new(),
            };
            let line = match (&finding.text, values.is_empty()) {
                (Some(text), true) => clean(text),
                (Some(text), false) => format!("{}: {values}", clean(text)),
                (None, _) => values,
            };
            if !line.is_empty() {
                write!(f, "\n{:14}{line}", "")?;
            }
            if finding.severity == Severity::Error
                && let Some(advice) = advice(&finding.rule)
            {
                write!(f, "\n{:14}do: {advice}", "")?;
            }
        }
        Ok(())
    }
}
