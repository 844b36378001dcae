//! QEMU's migration stream without I/O: framing, commands, device codec and JSON trailer.
//!
//! | module | holds |
//! |---|---|
//! | [`stream`] | header, configuration, sections, footers, commands, packages, return path: parser and writers |
//! | [`codec`] | device state: [`codec::encode`], [`codec::decode`] and the visitors behind them |
//! | [`vmdesc`] | the JSON trailer, written in three dialects and read back as templates |
//! | [`helpers`] | states of helper processes: the blob of `dbus-vmstate` |
//! | [`dump`] | `-dump-vmstate` files, for sections that no trailer describes |
//! | [`json`] | JSON as QEMU formats it |
//!
//! A stream with one device, written and read again:
//!
//! ```
//! use vmstate_desc::{Codec, Description, DynState, Field, Limits, Scalar};
//! use vmstate_wire::stream::{
//!     IdStr, InstanceId, SectionHeader, SectionId, SectionKind, VersionId, write,
//! };
//! use vmstate_wire::vmdesc::{Trailer, Vmdesc, VmdescDialect};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut rtc = Description::new("rtc", 1, 1);
//! rtc.fields = vec![Field::value("year", Codec::Uint16)].into();
//! let mut state = DynState::new(rtc);
//! state.set("year", Scalar::U16(2026));
//!
//! let mut out = Vec::new();
//! let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
//! write::put_header(&mut out);
//! write::put_section_header(
//!     &mut out,
//!     &SectionHeader {
//!         kind: SectionKind::Full,
//!         section_id: SectionId(0),
//!         idstr: IdStr::new("rtc")?,
//!         instance_id: InstanceId(0),
//!         version_id: VersionId(1),
//!     },
//! );
//! let payload = out.len();
//! vmdesc.device("rtc", 0, &state, &mut out)?;
//! write::put_footer(&mut out, SectionId(0));
//! write::put_eof(&mut out);
//!
//! // The trailer is all that a reader needs to decode the section.
//! let text = vmdesc.finish();
//! let trailer = Trailer::parse(text.as_bytes())?;
//! let device = trailer.device("rtc", 0).ok_or("not described")?;
//! let footer = |rest: &[u8]| rest.starts_with(&[0x7e, 0, 0, 0, 0]);
//! let decoded = device.decode(&out[payload..], payload as u64, false, Limits::default(), &footer)?;
//! assert_eq!(decoded.state.get("year"), Some(&Scalar::U16(2026).into()));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod codec;
pub mod dump;
pub mod helpers;
pub mod json;
pub mod stream;
pub mod vmdesc;
