//! The ids that must be there.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use vmstate_wire::helpers::MAX_ID;

/// An id that no helper can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id of {0} bytes is listed, must be 1 to 255")]
pub struct IdListError(pub usize);

/// The ids of the helpers that take part, and must: QEMU's property `id-list`, with commas in between. An id that has a comma itself
/// cannot be listed.
///
/// ```
/// use vmstate_dbus::IdList;
///
/// let list: IdList = "tpm0,net0".parse()?;
/// assert_eq!(list.iter().collect::<Vec<_>>(), ["net0", "tpm0"]);
/// assert!(",".parse::<IdList>().is_err());
/// # Ok::<(), vmstate_dbus::IdListError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdList {
    text: String,
    ids: BTreeSet<String>,
}

impl IdList {
    /// Whether this id is listed.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// The ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(String::as_str)
    }
}

impl FromStr for IdList {
    type Err = IdListError;

    fn from_str(text: &str) -> Result<Self, IdListError> {
        let ids: BTreeSet<String> = text.split(',').map(str::to_owned).collect();
        match ids.iter().find(|id| !(1..=MAX_ID).contains(&id.len())) {
            Some(id) => Err(IdListError(id.len())),
            None => Ok(Self {
                text: text.to_owned(),
                ids,
            }),
        }
    }
}

/// As it was given.
impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let list: IdList = "b,a,b".parse().unwrap();
        assert!(list.contains("a") && list.contains("b") && !list.contains("a,b"));
        assert_eq!(
            (list.iter().count(), list.to_string()),
            (2, "b,a,b".to_owned())
        );
        for (wrong, length) in [("", 0), (",", 0), ("a,", 0), (&"x".repeat(256)[..], 256)] {
            assert_eq!(wrong.parse::<IdList>(), Err(IdListError(length)), "{wrong}");
        }
    }
}
