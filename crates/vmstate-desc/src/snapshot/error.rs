//! Why a snapshot or a restore was refused.

use std::fmt::{self, Write as _};

use crate::error::{Error, ErrorKind, FieldPath, Reason, Segment};

/// A state that cannot be taken or put back: device, path of the field, value, reason.
///
/// One word wide. The path is collected on the way out.
///
/// ```
/// use vmstate_desc::snapshot::InvalidError;
/// let e = InvalidError::new("out of range")
///     .with_value(70_000)
///     .in_field("tail")
///     .in_element(3)
///     .in_field("queues")
///     .in_device("demo-nic");
/// assert_eq!(e.to_string(), "demo-nic/queues[3]/tail: 70000 is invalid: out of range");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    device: Option<String>,
    path: FieldPath,
    value: Option<String>,
    reason: Reason,
}

impl InvalidError {
    /// A refusal for this reason.
    pub fn new(reason: impl Into<Reason>) -> Self {
        Self(Box::new(Inner {
            device: None,
            path: FieldPath::default(),
            value: None,
            reason: reason.into(),
        }))
    }

    /// The same error with the value that is refused, unless it has one. Long ones are cut.
    #[must_use]
    pub fn with_value(mut self, value: impl fmt::Debug) -> Self {
        self.0.value.get_or_insert_with(|| shown(&value));
        self
    }

    /// The same error with a value that is text already, if any, unless it has one.
    #[doc(hidden)]
    #[must_use]
    pub fn with_text(mut self, value: Option<String>) -> Self {
        self.0.value = self.0.value.or(value);
        self
    }

    /// The same error, one field further out.
    #[must_use]
    pub fn in_field(mut self, name: &str) -> Self {
        self.0.path.push_outer(Segment::Field(name.to_owned()));
        self
    }

    /// The same error, one element further out.
    #[must_use]
    pub fn in_element(mut self, index: usize) -> Self {
        self.0.path.push_outer(Segment::Index(index as u64));
        self
    }

    /// The same error in a device, unless it has one.
    #[must_use]
    pub fn in_device(mut self, name: &str) -> Self {
        self.0.device.get_or_insert_with(|| name.to_owned());
        self
    }

    /// The device's description, where known.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        self.0.device.as_deref()
    }

    /// Where in the device.
    #[must_use]
    pub fn path(&self) -> &FieldPath {
        &self.0.path
    }

    /// The value that is refused, as `Debug` shows it, where there is one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.0.value.as_deref()
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// As an error of the traversal, which adds the rest of the path and the byte offset.
    pub(crate) fn into_error(self, hook: &'static str) -> Error {
        let Inner {
            path,
            value,
            reason,
            ..
        } = *self.0;
        Error::new(ErrorKind::Invalid {
            hook,
            value,
            reason,
        })
        .inside(path)
    }
}

impl fmt::Display for InvalidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(device) = &inner.device {
            f.write_str(device)?;
            f.write_str(if inner.path.is_empty() { ": " } else { "/" })?;
        }
        if !inner.path.is_empty() {
            write!(f, "{}: ", inner.path)?;
        }
        if let Some(value) = &inner.value {
            write!(f, "{value} is invalid: ")?;
        }
        inner.reason.fmt(f)
    }
}

impl std::error::Error for InvalidError {}

impl From<Reason> for InvalidError {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl From<&'static str> for InvalidError {
    fn from(reason: &'static str) -> Self {
        Self::new(reason)
    }
}

impl From<String> for InvalidError {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

/// Most bytes of a value in an error.
const SHOWN: usize = 80;

/// A value for people, cut where it is long: an array of a mebibyte is not formatted to its end.
pub(crate) fn shown(value: &dyn fmt::Debug) -> String {
    struct Cut(String);

    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for c in text.chars() {
                if self.0.len() + c.len_utf8() > SHOWN {
                    self.0.push('…');
                    return Err(fmt::Error);
                }
                self.0.push(c);
            }
            Ok(())
        }
    }

    let mut out = Cut(String::new());
    // The error is the cut itself.
    let _ = write!(out, "{value:?}");
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        let e = InvalidError::new("too long").with_value(vec![7_u8; 1000]);
        let value = e.value().unwrap();
        assert!(
            value.starts_with("[7, 7, ") && value.ends_with('…'),
            "{value}"
        );
        assert!(value.len() <= SHOWN + '…'.len_utf8());
    }

    #[test]
    fn places() {
        let e = InvalidError::new("no");
        assert_eq!(e.clone().in_device("uart").to_string(), "uart: no");
        assert_eq!(e.clone().in_device("a").in_device("b").device(), Some("a"));
        assert_eq!(e.in_field("x").to_string(), "x: no");
    }

    #[test]
    fn becomes_an_error_of_the_traversal() {
        let e = InvalidError::new("no")
            .with_value(3)
            .in_field("x")
            .in_element(2);
        let e = e
            .into_error("restore")
            .in_field("regs")
            .in_description("uart");
        assert_eq!(e.to_string(), "uart/regs[2]/x: restore refused 3: no");
        let e = InvalidError::new("no").into_error("snapshot");
        assert_eq!(e.to_string(), "snapshot refused: no");
    }
}
