//! Hand-written save and load functions that no description has been made of yet.
//!
//! Such a function names each thing that it writes. A [`Recorder`] makes a state with a description out of its calls, which any format
//! takes; a [`Replayer`] gives the things back by the same calls, from such a state or from the bytes of a format. A call
//! that does not fit is refused with both names and types, instead of reading something else.
//!
//! ```
//! use vmstate_desc::imperative::{Recorder, Replayer};
//! use vmstate_desc::{Error, ListKind};
//!
//! struct Route { to: u32, metric: u16 }
//! const LOOP: ListKind = ListKind::Marked { more: 42, stop: 0, lenient: true };
//!
//! fn save(routes: &[Route], out: &mut Recorder) {
//!     out.put("seed", 7_u64);
//!     out.list("routes", LOOP, routes, |out, route| {
//!         out.put("to", route.to);
//!         out.put("metric", route.metric);
//!     });
//! }
//!
//! fn load(input: &mut Replayer<'_>) -> Result<Vec<Route>, Error> {
//!     let _: u64 = input.get("seed")?;
//!     let mut routes = Vec::new();
//!     input.list("routes", LOOP, 100, |input| {
//!         routes.push(Route { to: input.get("to")?, metric: input.get("metric")? });
//!         Ok(())
//!     })?;
//!     Ok(routes)
//! }
//!
//! let mut recorder = Recorder::new();
//! save(&[Route { to: 1, metric: 10 }, Route { to: 2, metric: 20 }], &mut recorder);
//! let state = recorder.finish("routes", 1)?;
//! assert_eq!(state.fields().count(), 2);
//!
//! let mut replayer = Replayer::of_state(&state);
//! assert_eq!(load(&mut replayer)?.len(), 2);
//! replayer.finish()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A recorded description tells of one run: a field that no element of a list happened to have is not in it. So it serves to print, to check
//! and to compare, and never to skip what is not understood. Written descriptions of the same data have the same bytes.

mod record;
mod replay;
#[cfg(test)]
mod tests;

use crate::codec::{Codec, Scalar, ScalarType};

pub use record::{RecordError, Recorder};
pub use replay::Replayer;

mod sealed {
    /// Only the types of this crate.
    pub trait Sealed {}
}

/// A number that hand-written code puts and gets: big-endian in QEMU's bytes, a bool one byte, a `f64` its bits.
pub trait Number: Copy + sealed::Sealed {
    /// How it is encoded.
    const CODEC: Codec;
    /// Its type.
    const TYPE: ScalarType;

    /// The value of any type.
    fn to_scalar(self) -> Scalar;

    /// The value, if it is of this type.
    fn from_scalar(scalar: Scalar) -> Option<Self>;
}

macro_rules! numbers {
    ($($ty:ty: $variant:ident, $codec:ident;)*) => {$(
        impl sealed::Sealed for $ty {}

        impl Number for $ty {
            const CODEC: Codec = Codec::$codec;
            const TYPE: ScalarType = ScalarType::$variant;

            fn to_scalar(self) -> Scalar {
                Scalar::$variant(self)
            }

            fn from_scalar(scalar: Scalar) -> Option<Self> {
                match scalar {
                    Scalar::$variant(value) => Some(value),
                    _ => None,
                }
            }
        }
    )*};
}

numbers! {
    bool: Bool, Bool;
    u8: U8, Uint8;
    u16: U16, Uint16;
    u32: U32, Uint32;
    u64: U64, Uint64;
    i8: I8, Int8;
    i16: I16, Int16;
    i32: I32, Int32;
    i64: I64, Int64;
    f64: F64, CpuDouble;
}
