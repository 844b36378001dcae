//! A harness for tests against stock QEMU: finds it, starts it, talks to it, ends it. Also message buses for helpers.
//!
//! QEMU is looked for in the directory that `VMSTATE_QEMU_DIR` names (as `interop/install-qemu` fills it), then on
//! `PATH`, where its version must be of the wanted generation. A test whose QEMU is missing says so and passes,
//! unless `VMSTATE_REQUIRE_QEMU` is set.
//!
//! A [`Bus`] is a `dbus-daemon`; without one, tests of D-Bus say so and pass, unless `VMSTATE_REQUIRE_DBUS` is set.
//!
//! Each [`Machine`] owns its process and a directory for its sockets and files; both are gone when it is dropped.
#![forbid(unsafe_code)]

mod bus;
mod machine;
mod qmp;
mod release;

pub use bus::{Bus, Users, dbus_document, unit_command};
pub use machine::{Machine, Ram, sha256};
pub use qmp::Qmp;
pub use release::{Generation, Program, find};

/// Why a step failed, for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of a step.
pub type Result<T> = std::result::Result<T, Failure>;
