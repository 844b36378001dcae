//! What a reader made of a stream that is not quite its own, for those who ask afterwards.

use std::sync::{Arc, Mutex, PoisonError};

/// Most warnings that are kept of one value, and of one stream. The others are counted.
pub const MAX_WARNINGS: usize = 64;

/// Something that was adapted, and should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule: `W-UNKNOWN`, `W-COND`.
    pub rule: &'static str,
    /// Description and field; of a whole stream, behind the section's name.
    pub path: String,
    /// Byte offset in the stream.
    pub offset: u64,
}

/// Warnings of which the first are kept, and all are counted: a stream must not decide about memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    /// The first ones, at most [`MAX_WARNINGS`].
    pub first: Vec<Warning>,
    /// How many there are.
    pub count: u64,
}

impl Warnings {
    /// Notes one more; it is made if it is kept.
    pub(crate) fn push(&mut self, make: impl FnOnce() -> Warning) {
        self.count = self.count.saturating_add(1);
        if self.first.len() < MAX_WARNINGS {
            self.first.push(make());
        }
    }
}

/// The warnings of one stream, of whose devices one after the other is loaded. Who holds a copy sees them as they come.
#[derive(Debug, Clone, Default)]
pub struct Adapted(Arc<Mutex<Warnings>>);

impl Adapted {
    /// Adds those of a section.
    pub fn add(&self, section: &str, warnings: &Warnings) {
        if warnings.count == 0 {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.count;
        for one in &warnings.first {
            all.push(|| Warning {
                path: format!("{section}: {}", one.path),
                ..one.clone()
            });
        }
        all.count = before.saturating_add(warnings.count);
    }

    /// What has been noted up to now.
    #[must_use]
    pub fn warnings(&self) -> Warnings {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_as_somebody_reads() {
        let adapted = Adapted::default();
        let copy = adapted.clone();
        let mut warnings = Warnings::default();
        for n in 0..MAX_WARNINGS as u64 + 9 {
            warnings.push(|| Warning {
                rule: "W-UNKNOWN",
                path: format!("dev/{n}"),
                offset: n,
            });
        }
        assert_eq!((warnings.first.len(), warnings.count), (64, 73));
        adapted.add("dev/0", &Warnings::default());
        assert_eq!(copy.warnings(), Warnings::default());
        adapted.add("a#0", &warnings);
        adapted.add("b#0", &warnings);
        let all = copy.warnings();
        assert_eq!((all.first.len(), all.count), (64, 146));
        assert_eq!(all.first[0].path, "a#0: dev/0");
    }
}
