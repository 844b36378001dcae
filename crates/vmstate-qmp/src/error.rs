//! Errors that one side of a dialogue sends to the other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a program can tell of an error. Nearly all are [`ErrorClass::GenericError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorClass {
    /// Whatever the text says.
    GenericError,
    /// There is no such command, or not now.
    CommandNotFound,
    /// The device is not active.
    DeviceNotActive,
    /// There is no such device.
    DeviceNotFound,
    /// KVM lacks something.
    KVMMissingCap,
    /// A class that QEMU did not have when this was written.
    #[serde(other)]
    Other,
}

/// A refusal: member `error` of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QmpError {
    /// For programs.
    pub class: ErrorClass,
    /// For people.
    pub desc: String,
}

impl QmpError {
    /// An error of the class that nearly all are of.
    #[must_use]
    pub fn generic(desc: impl fmt::Display) -> Self {
        Self {
            class: ErrorClass::GenericError,
            desc: desc.to_string(),
        }
    }

    /// There is no such command.
    #[must_use]
    pub fn not_found(command: &str) -> Self {
        Self {
            class: ErrorClass::CommandNotFound,
            desc: format!("The command {command} has not been found"),
        }
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Self::generic(format_args!("Parameter '{parameter}' is missing"))
    }

    pub(crate) fn unexpected(parameter: &str) -> Self {
        Self::generic(format_args!("Parameter '{parameter}' is unexpected"))
    }

    pub(crate) fn invalid_type(parameter: &str, expected: &str) -> Self {
        Self::generic(format_args!(
            "Invalid parameter type for '{parameter}', expected: {expected}"
        ))
    }

    pub(crate) fn expects(parameter: &str, expected: &str) -> Self {
        Self::generic(format_args!("Parameter '{parameter}' expects {expected}"))
    }

    pub(crate) fn invalid_value(parameter: &str, value: &str) -> Self {
        Self::generic(format_args!(
            "Parameter '{parameter}' does not accept value '{value}'"
        ))
    }
}

impl fmt::Display for QmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.desc)
    }
}

impl std::error::Error for QmpError {}
