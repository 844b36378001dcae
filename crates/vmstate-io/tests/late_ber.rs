//! The engine's guests that go before their memory, over VM state over BER: every place where the connection can break.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "tests build their input from small numbers, and fail by panicking"
)]

#[path = "../../vmstate-engine/tests/it/late.rs"]
mod late;
#[path = "../../vmstate-engine/tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "other tests of the engine need more of it"
)]
mod support;

use std::sync::Arc;

use vmstate_ber::frame::{Hello, Role};
use vmstate_ber::stream::Writer;
use vmstate_engine::{Incoming, LoadError, Outgoing, Settings};
use vmstate_io::live::{BerDecoder, BerEncoder};

/// What stands behind the negotiation.
struct Ber;

/// What guests that go before their memory go in.
const FORMAT: &dyn support::Format = &Ber;

impl support::Format for Ber {
    fn outgoing(
        &self,
        settings: Settings,
        memory: &Arc<support::TestMemory>,
    ) -> (Outgoing, Vec<u8>) {
        let hello = Hello {
            role: Role::Source,
            session: [7; 16],
            ..Hello::of_file("a toy", Vec::new())
        };
        let mut front = Vec::new();
        let writer = Writer::without_digest(&hello, &mut front);
        let encoder = Box::new(BerEncoder::new(writer, memory.clone(), &settings));
        let outgoing = Outgoing::in_format(settings, support::identity(), true, encoder);
        (outgoing, front)
    }

    fn begin(
        &self,
        incoming: &mut Incoming,
        memory: &Arc<support::TestMemory>,
        input: &mut support::Pipe,
    ) -> Result<(), LoadError> {
        let mut decoder = BerDecoder::new(memory.clone(), vmstate_ber::Limits::default());
        decoder.hello(input)?;
        incoming.change_format(Box::new(decoder));
        Ok(())
    }
}
