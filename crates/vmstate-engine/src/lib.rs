//! Live migration as pure state machines: handlers, registry, guest RAM, source and destination, without I/O.
//!
//! Nothing here opens a socket, starts a thread or reads a clock. A driver does: it executes what a machine asks for,
//! tells it what came of it, and passes the time as an argument.
//!
//! | to | use |
//! |---|---|
//! | say what a machine consists of | [`Registry`]: [`SaveVmHandlers`] and described [`Device`]s |
//! | migrate state in rounds | an implementation of [`SaveVmHandlers`]; for guest RAM, [`RamHandler`] over [`GuestMemory`] |
//! | let a migration stop, start and slow down the guest | [`Machine`], with the right to run as a [`RunToken`] |
//! | know what to do next | [`source::Source`], [`destination::Destination`] |
//! | write and read the bytes | [`Outgoing`], [`Incoming`], over a [`ChannelWriter`] and a [`SectionReader`] |
//! | write and read another format than QEMU's | [`StreamEncoder`], [`StreamDecoder`] |
//! | set and check what users may set | [`Capabilities`], [`MigrationParameters`], together [`Settings`] |
//! | show how it goes | [`MigrationStatus`], [`MigrationInfo`] |
//!
//! Who may run the guest is decided in two tables, [`source::ROWS`] and [`destination::ROWS`]; never two do.
//!
//! A machine with one device whose state no description gives, saved as a stream:
//!
//! ```
//! use vmstate_engine::{
//!     ANY_INSTANCE, Bql, CompleteCx, HandlerError, Identity, Outgoing, Registry, SaveVmHandlers,
//!     Settings, Writes,
//! };
//! # use vmstate_engine::{ChannelError, ChannelWriter, SectionWriter};
//! # use vmstate_wire::stream::StreamOffset;
//!
//! struct Printer(Vec<u8>);
//!
//! impl SaveVmHandlers for Printer {
//!     fn writes(&self) -> Writes {
//!         Writes::STATE
//!     }
//!     fn save_state(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
//!         Ok(cx.out.bytes(&self.0)?)
//!     }
//! }
//! # #[derive(Default)]
//! # struct File(Vec<u8>);
//! # impl SectionWriter for File {
//! #     fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> { self.0.extend_from_slice(bytes); Ok(()) }
//! #     fn pages(&mut self, _: vmstate_ram::BlockId, _: u64, _: u64) -> Result<(), ChannelError> { Ok(()) }
//! #     fn rate_exceeded(&self) -> bool { false }
//! #     fn position(&self) -> StreamOffset { StreamOffset(self.0.len() as u64) }
//! # }
//! # impl ChannelWriter for File {
//! #     fn flush(&mut self) -> Result<(), ChannelError> { Ok(()) }
//! # }
//!
//! let mut registry = Registry::new();
//! let printer = Box::new(Printer(b"half a page".to_vec()));
//! registry.register_savevm_live("printer", ANY_INSTANCE, 1, printer)?;
//!
//! // The VMM's lock, held; the guest is stopped.
//! let bql = Bql::holding(());
//! let mut file = File::default();
//! let mut stream = Outgoing::new(Settings::default(), Identity::new("board"), false);
//! stream.begin(&mut file)?;
//! stream.setup(&bql, &mut registry, &mut file)?;
//! stream.iterate(&mut registry, &mut file)?;
//! stream.complete(&bql, &mut registry, &mut file)?;
//! stream.commit(&mut file)?;
//! stream.trailer(&mut file)?;
//! assert!(file.0.starts_with(b"QEVM\0\0\0\x03\x07\0\0\0\x05board"));
//! assert!(file.0.windows(11).any(|bytes| bytes == b"half a page"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod bql;
mod channel;
pub mod destination;
mod global_state;
mod handlers;
mod info;
mod machine;
mod memory;
pub mod postcopy;
mod ram;
mod registry;
mod settings;
pub mod source;
mod status;
mod stream;

pub use self::bql::Bql;
pub use self::channel::{
    ChannelEnd, ChannelError, ChannelWriter, MAX_PEEK, PageItem, PageRun, PageSink, PageSource,
    SectionReader, SectionWriter,
};
pub use self::global_state::GlobalState;
pub use self::handlers::{
    CompleteCx, CompletePrecopyThread, DiscardCx, DiscardSink, HandlerError, IterateCx, LoadCx,
    LoadSetupCx, LoadStateBuffer, Pending, Progress, RecoveryLink, ResumeCx, SaveVmHandlers,
    SetupCx, StateBufferSink, ThreadCx, Writes,
};
pub use self::info::{Blocktime, FaultLatency, MigrationInfo, MigrationStats, PostcopyInfo};
pub use self::machine::{Machine, MachineError, RunState, RunToken, StoppedGuest};
pub use self::memory::{DirtyLog, DirtySink, GuestBlock, GuestMemory, MemoryError};
pub use self::ram::{
    DirtyPages, PageRequestError, PageRequests, RAM_VERSION, RamCounters, RamHandler, RamTotals,
    UrgentPages,
};
pub use self::registry::{
    ANY_INSTANCE, DescribedDevice, Device, Entry, LookupError, Owned, Registry, RegistryError,
};
pub use self::settings::{
    Capabilities, Capability, CapabilityError, MigrationMode, MigrationParameters,
    MultifdCompression, ParameterError, ParameterValue, Peer, Settings, Supported,
    ZeroPageDetection,
};
pub use self::status::MigrationStatus;
pub use self::stream::probe;
pub use self::stream::{
    Element, Identity, Incoming, LoadError, LoadStep, Opening, Outgoing, Package, PrecopyThread,
    ReceivedBitmaps, SaveError, SectionBody, SectionLoad, StateBuffer, StreamDecoder,
    StreamEncoder,
};
