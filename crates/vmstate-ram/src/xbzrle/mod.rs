//! XBZRLE: pages as deltas against the content that the destination has.
//!
//! A delta is a sequence of pairs: an unchanged run, then a changed run with its **new** bytes.
//!
//! ```text
//! delta := ( zrun  nzrun  bytes[nzrun] )*
//! zrun  := uleb128 number of unchanged bytes, 0 only in the first pair
//! nzrun := uleb128 number of changed bytes, above 0
//! ```
//!
//! A uleb128 has at most two bytes: values below 0x80 in one; else the low seven bits with 0x80 added, then the
//! high seven bits. An unchanged run at the end is left out; an empty delta changes nothing.
//!
//! The capability `xbzrle` concerns the source alone: every destination decodes these records.
//!
//! Wire: QEMU 7.2..11.1, `docs/devel/migration`, XBZRLE.

mod cache;
mod decode;
mod encode;

pub use self::cache::{CacheCounters, CacheOutcome, XbzrleCache};
pub use self::decode::{XbzrleError, decode};
pub use self::encode::{Encoding, encode};

/// The longest run that a two-byte uleb128 can say.
const LONGEST_RUN: usize = 0x3fff;
