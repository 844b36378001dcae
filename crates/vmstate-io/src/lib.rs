//! Drivers of the vmstate crates: whole streams from files and pipes, QMP over sockets.
//!
//! [`inspect`] opens a stream that QEMU or a Rust machine wrote, walks it to the last byte and decodes its devices through the
//! stream's own trailer. [`qmp`] talks to a machine's monitor, and is one.
//!
//! ```
//! use vmstate_io::{SliceInput, inspect};
//! use vmstate_wire::stream::write;
//!
//! let mut stream = Vec::new();
//! write::put_header(&mut stream);
//! write::put_eof(&mut stream);
//! let analysis = inspect::analyze(
//!     &mut SliceInput::new(&stream),
//!     &mut [],
//!     &inspect::Options::default(),
//! );
//! assert!(analysis.failure.is_none());
//! assert!(analysis.report.sections.is_empty());
//! ```
#![forbid(unsafe_code)]

mod clock;
pub mod convert;
mod descriptors;
pub mod diff;
pub mod drive;
mod input;
pub mod inspect;
pub mod live;
mod local;
pub mod qmp;
pub mod render;
pub mod schema;

pub use input::{Input, MapInput, ReadInput, SliceInput, open};
pub use vmstate_linux::MappedFile;
pub use vmstate_wire::dump::Dump;
pub use vmstate_wire::stream::StreamErrorKind;
