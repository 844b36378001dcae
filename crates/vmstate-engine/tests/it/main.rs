//! Migrations in memory, through the public interface only.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests build their input from small numbers, and fail by panicking"
)]

mod late;
mod late_urgent;
mod model;
mod model_postcopy;
mod order;
mod probe;
mod ram;
mod stream;
mod support;
mod whole;

use std::sync::Arc;

use vmstate_engine::{Incoming, LoadError, Outgoing, Settings};

/// QEMU's stream, in front of which nothing stands.
struct Qemu;

/// What guests that go before their memory go in.
const FORMAT: &dyn support::Format = &Qemu;

impl support::Format for Qemu {
    fn outgoing(
        &self,
        settings: Settings,
        _memory: &Arc<support::TestMemory>,
    ) -> (Outgoing, Vec<u8>) {
        let outgoing = Outgoing::new(settings, support::identity(), true);
        (outgoing, Vec::new())
    }

    fn begin(
        &self,
        _incoming: &mut Incoming,
        _memory: &Arc<support::TestMemory>,
        _input: &mut support::Pipe,
    ) -> Result<(), LoadError> {
        Ok(())
    }
}
