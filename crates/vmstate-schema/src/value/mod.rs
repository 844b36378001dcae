//! Device state as JSON values, over the one engine.
//!
//! | state | JSON |
//! |---|---|
//! | bool | `true`, `false` |
//! | integers of 1, 2 and 4 bytes | number |
//! | unsigned integers of 8 bytes, doubles (their bits), integer keys of trees | `"0x"` and 16 lower-case hex digits |
//! | signed integers of 8 bytes, timers | string, decimal |
//! | buffers, byte arrays, bitmaps (be64 words) | string of lower-case hex digits |
//! | a capability's name | string |
//! | arrays of scalars | array of what one would be |
//! | embedded state | object by field name; an absent field is left out |
//! | lists, arrays of structures or pointers | array; an absent element is `null` |
//! | trees | array of `{"key": …, "value": …}` |
//! | the case of a variant | as embedded state, with `"$type"`, the case's name, and `"$version"` |
//! | subsections | under the key `"$sub"`, by name; each with its `"$version"` |
//! | a custom codec's bytes | string of hex digits; an array where the codec writes more than bytes, or several elements |
//! | a bool's byte that is neither 0 nor 1, a name that is not UTF-8 | `{"$raw": hex digits}` |
//! | unused bytes, validators | nothing |
//!
//! Numbers beyond 2^53 never stand in JSON as numbers, since many readers round them. Where a string stands for an integer of 8
//! bytes, a number of at most 2^53 − 1 is accepted too.
//!
//! A field's key is its name; of several namesakes `name[0]`, `name[1]`, …; a name that begins with `$` gets another `$`.
//!
//! ```
//! use vmstate_desc::{Codec, Description, DynState, Field, Limits, Scalar};
//! use vmstate_schema::value::{from_json, to_json};
//!
//! static RTC: Description = Description::new("rtc", 1, 1)
//!     .with_fields(const { &[Field::value("year", Codec::Uint16), Field::value("ticks", Codec::Uint64)] });
//! let mut rtc = DynState::new(&RTC);
//! rtc.set("year", Scalar::U16(2026));
//! rtc.set("ticks", Scalar::U64(1 << 60));
//! let json = to_json(&rtc)?;
//! assert_eq!(json.to_string(), r#"{"year":2026,"ticks":"0x1000000000000000"}"#);
//!
//! let mut again = DynState::new(&RTC);
//! from_json(&mut again, 1, &json, Limits::default())?;
//! assert_eq!(again, rtc);
//! # Ok::<(), vmstate_desc::Error>(())
//! ```

mod input;
mod keys;
mod output;
#[cfg(test)]
mod tests;
mod text;

pub use input::{JsonIn, from_json};
pub use keys::field_keys;
pub(crate) use keys::unique_keys;
pub use keys::unique_names;
pub use output::{JsonOut, to_json};
pub use text::{decimal, hex, hex64, parse_hex};

/// The key of an object's subsections.
pub const SUBSECTIONS: &str = "$sub";
/// The key of the name of a variant's case.
pub const TYPE: &str = "$type";
/// The key of the version of a subsection, and of a variant's case.
pub const VERSION: &str = "$version";
/// The key of bytes that stand for themselves.
pub const RAW: &str = "$raw";

/// The largest integer that every reader of JSON keeps exactly, and its negative.
pub const MAX_SAFE: u64 = (1 << 53) - 1;
