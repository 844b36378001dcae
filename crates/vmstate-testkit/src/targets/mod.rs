//! The fuzz targets: each takes any bytes and panics if a promise is broken.

mod ber;
mod convert;
mod device;
mod helpers;
mod introspection;
mod json;
mod live;
mod machine;
mod memory;
mod moved;
mod negotiate;
mod postcopy;
mod qmp;
mod schema;
mod snapshot;
mod stream;
mod whole;

pub use ber::{ber, ber_value};
pub use convert::convert;
pub use device::{device, trailer};
pub use helpers::helpers;
pub use introspection::introspection;
pub use json::json;
pub use live::{incoming, incoming_ber};
pub use machine::machine;
pub use memory::{dirty_bitmap, mapped_ram, multifd, ram, xbzrle};
pub use moved::ber_moved;
pub use negotiate::negotiate;
pub use postcopy::{page_requests, postcopy};
pub use qmp::qmp;
pub use schema::{schema, value};
pub use snapshot::snapshot;
pub use stream::{configuration, infer, return_path, stream};
pub use whole::{analyze, dump};

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target and of its directory of seeds.
    pub name: &'static str,
    /// What it does with its input.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name }),*];
    };
}

targets! {
    analyze,
    ber,
    ber_moved,
    ber_value,
    configuration,
    convert,
    device,
    dirty_bitmap,
    dump,
    helpers,
    incoming,
    incoming_ber,
    infer,
    introspection,
    json,
    machine,
    mapped_ram,
    multifd,
    negotiate,
    page_requests,
    postcopy,
    qmp,
    ram,
    return_path,
    schema,
    snapshot,
    stream,
    trailer,
    value,
    xbzrle,
}

/// Takes the first byte off the input: the settings. None left counts as 0.
fn settings(data: &[u8]) -> (u8, &[u8]) {
    match data.split_first() {
        Some((byte, rest)) => (*byte, rest),
        None => (0, data),
    }
}

/// Drives a parser over input that comes in pieces of `piece` bytes. `step` gives how many bytes it took, how many it
/// needs, or that it is done.
fn in_pieces(input: &[u8], piece: usize, mut step: impl FnMut(&[u8]) -> Next) {
    let (mut at, mut available) = (0_usize, 0_usize);
    loop {
        let have = input.get(at..available).unwrap_or_default();
        match step(have) {
            Next::Took(count) => {
                assert!(count <= have.len(), "took more than there was");
                at += count;
            }
            Next::Skip(count) => {
                at = input.len().min(at.saturating_add(count));
                available = available.max(at);
            }
            Next::Need(count) => {
                assert!(count > have.len(), "asked for what was there");
                if available == input.len() {
                    return;
                }
                available = input.len().min(available + piece.max(1));
            }
            Next::Done => return,
        }
    }
}

/// What a parser says.
enum Next {
    Took(usize),
    Skip(usize),
    Need(usize),
    Done,
}
