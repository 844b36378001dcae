//! The NVMe controller of QEMU 11.1: section `nvme`.
//!
//! Field names are those of the NVM Express specification, in which they are explained; all travel big-endian.
//!
//! Which queues exist is for the stream to say: [`Nvme::submission`] and [`Nvme::completion`] have a marker before every slot.
//! How many slots there are is configured with [`Nvme::new`].

mod controller;
mod identify;
mod namespace;
mod queue;

pub use controller::{Bar, HostBehavior, MAX_SLOTS, Nvme};
pub use identify::{IdNs, IdNsInd, IdNsNvm, LbaFormat};
pub use namespace::{Atomic, Namespace, WriteCache};
pub use queue::{
    AsyncEvent, AsyncEventResult, Command, Completion, CompletionQueue, DataPointer, Request,
    SglDescriptor, SubmissionQueue,
};
