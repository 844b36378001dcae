//! Live migration as pure state machines: handlers, registry, guest RAM, source and destination, without I/O.
//!
//! Nothing here opens a socket, starts a thread or reads a clock. A driver does: it executes what a machine asks for,
//! tells it what came of it, and passes the time as an argument.
//!
//! ```
//! use vmstate_engine::{Bql, CompleteCx, HandlerError, SaveVmHandlers, Settings, Writes};
//! # use vmstate_engine::{ChannelError, SectionWriter};
//! # use vmstate_wire::stream::StreamOffset;
//!
//! /// Ten bytes that no description describes.
//! struct Legacy([u8; 10]);
//!
//! impl SaveVmHandlers for Legacy {
//!     fn writes(&self) -> Writes {
//!         Writes::STATE
//!     }
//!     fn save_state(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
//!         Ok(cx.out.bytes(&self.0)?)
//!     }
//! }
//! # #[derive(Default)]
//! # struct Memory(Vec<u8>);
//! # impl SectionWriter for Memory {
//! #     fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> { self.0.extend_from_slice(bytes); Ok(()) }
//! #     fn pages(&mut self, _: vmstate_ram::BlockId, _: u64, _: u64) -> Result<(), ChannelError> { Ok(()) }
//! #     fn rate_exceeded(&self) -> bool { false }
//! #     fn position(&self) -> StreamOffset { StreamOffset(self.0.len() as u64) }
//! # }
//!
//! let mut out = Memory::default();
//! let settings = Settings::default();
//! let mut cx = CompleteCx { bql: &Bql::holding(()), out: &mut out, settings: &settings };
//! Legacy([7; 10]).save_state(&mut cx)?;
//! assert_eq!(out.0, [7; 10]);
//! # Ok::<(), HandlerError>(())
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
mod ram;
mod registry;
mod settings;
pub mod source;
mod status;
mod stream;

pub use self::bql::Bql;
pub use self::channel::{
    ChannelEnd, ChannelError, ChannelWriter, MAX_PEEK, SectionReader, SectionWriter,
};
pub use self::global_state::GlobalState;
pub use self::handlers::{
    CompleteCx, CompletePrecopyThread, HandlerError, IterateCx, LoadCx, LoadSetupCx,
    LoadStateBuffer, Pending, Progress, RecoveryLink, ResumeCx, SaveVmHandlers, SetupCx,
    StateBufferSink, ThreadCx, Writes,
};
pub use self::info::{MigrationInfo, MigrationStats};
pub use self::machine::{Machine, MachineError, RunState, RunToken, StoppedGuest};
pub use self::memory::{DirtyLog, DirtySink, GuestBlock, GuestMemory, MemoryError};
pub use self::ram::{DirtyPages, RAM_VERSION, RamCounters, RamHandler, RamTotals};
pub use self::registry::{
    ANY_INSTANCE, DescribedDevice, Device, Entry, LookupError, Owned, Registry, RegistryError,
};
pub use self::settings::{
    Capabilities, Capability, CapabilityError, MigrationMode, MigrationParameters,
    MultifdCompression, ParameterError, ParameterValue, Settings, Supported, ZeroPageDetection,
};
pub use self::status::MigrationStatus;
pub use self::stream::{
    Identity, Incoming, LoadError, LoadStep, Outgoing, PrecopyThread, SaveError, StateBuffer,
};
