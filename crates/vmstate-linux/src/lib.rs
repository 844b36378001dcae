//! What the vmstate crates need of Linux. The only crate of the workspace with `unsafe`; each block says why it is sound.
//!
//! | to do | use |
//! |---|---|
//! | look here and there into a large file | [`MappedFile`] |
//! | have memory that harts, senders and receivers share | [`GuestRam`] |
//! | know what was written to it | [`DirtyLog`] |
//! | move it to and from a file descriptor | [`Gather`], [`Scatter`] |
//! | let it come page by page while it is in use | [`Userfault`] |
//! | keep the queue in a socket short | [`limit_unsent`], [`limit_unread`] |
//!
//! ```
//! use vmstate_linux::{DirtyLog, GuestRam};
//!
//! let ram = GuestRam::new(1 << 20)?;
//! let log = DirtyLog::new(ram.len(), 4096);
//! // A hart:
//! ram.store(0x3008, 42_u64);
//! log.mark(0x3008);
//! // A sender:
//! let mut dirty = [0; 4];
//! assert_eq!(log.collect_into(&mut dirty), 1);
//! assert_eq!(dirty, [1 << 3, 0, 0, 0]);
//! # Ok::<(), std::io::Error>(())
//! ```

mod dirty_log;
mod guest_ram;
mod inherited;
mod mapped_file;
mod socket;
mod thread;
mod userfault;
mod vectored;

pub use dirty_log::DirtyLog;
pub use guest_ram::{Backing, GuestRam, OutOfBounds, Word};
pub use inherited::inherited_fd;
pub use mapped_file::MappedFile;
pub use socket::{least_round_trip, limit_unread, limit_unsent};
pub use thread::thread_number;
pub use userfault::{Fault, Userfault, UserfaultError};
pub use vectored::{Gather, Scatter};
