//! An example: a disk controller in the manner of NVMe, whose queues come and go with the guest's wishes.
//!
//! [`Controller`] sends its queues as QEMU 11.1 does for NVMe: a marker before every slot says whether a queue follows, so the
//! destination learns from the stream which queues exist. [`LegacyController`] sends the same in the older form, in which only
//! the absent ones have a marker: there both ends must have the same queues beforehand.
//!
//! ```
//! use vmstate_desc::Limits;
//! use vmstate_devices::nvme_like::{Controller, Queue};
//! use vmstate_wire::codec::{decode, encode};
//!
//! let mut source = Controller::default();
//! source.submission_count = 3;
//! source.submission = vec![Some(Box::new(Queue::new(1, 64))), None, None];
//! let mut bytes = Vec::new();
//! encode(&source, &mut bytes)?;
//!
//! let mut target = Controller::default();
//! decode(&mut target, 1, &bytes, Limits::default())?;
//! assert_eq!(target, source);
//! # Ok::<(), vmstate_desc::Error>(())
//! ```

use vmstate_derive::VmState;
use vmstate_desc::Reason;

/// Most submission queues of one controller that this end accepts.
pub const MAX_SUBMISSION_QUEUES: u32 = 1024;

/// Most completion queues of one controller that this end accepts.
pub const MAX_COMPLETION_QUEUES: u32 = 64;

/// Slots of a [`LegacyController`].
pub const LEGACY_SLOTS: usize = 4;

/// A ring in guest memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-like-queue", version = 1, post_load = Self::check)]
pub struct Queue {
    /// Number that the guest gave it.
    pub id: u16,
    /// Entry that is taken next.
    pub head: u32,
    /// Entry that is filled next.
    pub tail: u32,
    /// Entries in the ring; 0 if the queue is not set up.
    pub size: u32,
    /// Guest-physical address of the ring.
    pub base: u64,
}

impl Queue {
    /// An empty queue of `size` entries.
    #[must_use]
    pub fn new(id: u16, size: u32) -> Self {
        Self {
            id,
            size,
            ..Self::default()
        }
    }

    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        for (name, position) in [("head", self.head), ("tail", self.tail)] {
            if position >= self.size && position != 0 {
                return Err(
                    format!("{name} {position} is outside of {} entries", self.size).into(),
                );
            }
        }
        Ok(())
    }
}

/// The controller.
///
/// Generic over the queue only so that tests can watch queues being dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-like", version = 1, minimum_version = 1)]
pub struct Controller<Q = Queue> {
    /// The guest has switched the controller on.
    pub enabled: bool,
    /// Commands for the controller itself.
    pub admin_submission: Q,
    /// Their completions.
    pub admin_completion: Q,
    /// Length of [`Controller::submission`].
    pub submission_count: u32,
    /// Submission queues by number; the guest has not created all of them.
    #[vmstate(name = "sq", pointers, count = submission_count, max = MAX_SUBMISSION_QUEUES)]
    pub submission: Vec<Option<Box<Q>>>,
    /// Length of [`Controller::completion`].
    pub completion_count: u8,
    /// Completion queues by number.
    #[vmstate(name = "cq", pointers, count = completion_count, max = MAX_COMPLETION_QUEUES)]
    pub completion: Vec<Option<Box<Q>>>,
}

/// The same controller in the older form: both ends must have created the same queues.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-like-legacy", version = 1, minimum_version = 1)]
pub struct LegacyController<Q = Queue> {
    /// The guest has switched the controller on.
    pub enabled: bool,
    /// Submission queues by number.
    #[vmstate(name = "sq", pointers(mark_absent))]
    pub submission: [Option<Box<Q>>; LEGACY_SLOTS],
}
