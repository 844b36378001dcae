//! Queues and what is in them.

use std::collections::VecDeque;

use vmstate_derive::VmState;

/// A submission queue, `nvme-sq`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-sq", version = 1, minimum_version = 1)]
pub struct SubmissionQueue {
    /// Number of the queue.
    pub sqid: u16,
    /// Completion queue that goes with it.
    pub cqid: u16,
    /// Entry that the controller takes next.
    pub head: u32,
    /// Entry that the guest fills next.
    pub tail: u32,
    /// Entries in the ring.
    pub size: u32,
    /// Guest-physical address of the ring.
    pub dma_addr: u64,
}

/// A completion queue, `nvme-cq`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-cq", version = 1, minimum_version = 1)]
pub struct CompletionQueue {
    /// Phase bit of the entries that come next.
    pub phase: u8,
    /// Number of the queue.
    pub cqid: u16,
    /// Not 0 if completions raise an interrupt.
    pub irq_enabled: u16,
    /// Entry that the guest takes next.
    pub head: u32,
    /// Entry that the controller fills next.
    pub tail: u32,
    /// Interrupt vector.
    pub vector: u32,
    /// Entries in the ring.
    pub size: u32,
    /// Guest-physical address of the ring.
    pub dma_addr: u64,
    /// Requests that are done, but found no place in the ring.
    #[vmstate(name = "req_list", qtailq, since = 1)]
    pub waiting: VecDeque<Request>,
}

/// A command under way, `nvme-request`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-request", version = 1, minimum_version = 1)]
pub struct Request {
    /// How it ended.
    pub status: u16,
    /// The completion, as far as it is known.
    pub cqe: Completion,
    /// The command.
    pub cmd: Command,
}

/// An entry of a completion queue, `nvme-cqe`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-cqe", version = 1, minimum_version = 1)]
pub struct Completion {
    /// Double word 0.
    pub result: u32,
    /// Double word 1.
    pub dw1: u32,
    /// Head of the submission queue.
    pub sq_head: u16,
    /// Number of the submission queue.
    pub sq_id: u16,
    /// Number of the command.
    pub cid: u16,
    /// Phase bit and status.
    pub status: u16,
}

/// An entry of a submission queue, `nvme-request-cmd`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-request-cmd", version = 1, minimum_version = 1)]
pub struct Command {
    /// What to do.
    pub opcode: u8,
    /// Fused operation, and how data is described.
    pub flags: u8,
    /// Number that the guest gave the command.
    pub cid: u16,
    /// Namespace.
    pub nsid: u32,
    /// Double words 2 and 3.
    pub res1: u64,
    /// Guest-physical address of the metadata.
    pub mptr: u64,
    /// Where the data is.
    pub dptr: DataPointer,
    /// Double word 10.
    pub cdw10: u32,
    /// Double word 11.
    pub cdw11: u32,
    /// Double word 12.
    pub cdw12: u32,
    /// Double word 13.
    pub cdw13: u32,
    /// Double word 14.
    pub cdw14: u32,
    /// Double word 15.
    pub cdw15: u32,
}

/// Two views of the same sixteen bytes of a command, `nvme-request-cmd-dptr`. Both travel.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-request-cmd-dptr", version = 1, minimum_version = 1)]
pub struct DataPointer {
    /// First page.
    pub prp1: u64,
    /// Second page, or the list of pages.
    pub prp2: u64,
    /// The same as a scatter-gather descriptor.
    pub sgl: SglDescriptor,
}

/// A scatter-gather descriptor, `nvme-request-cmd-dptr-sgl`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-request-cmd-dptr-sgl", version = 1, minimum_version = 1)]
pub struct SglDescriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Reserved.
    pub rsvd: [u8; 3],
    /// Kind of descriptor.
    #[vmstate(name = "type")]
    pub kind: u8,
}

/// An event that waits for a request of the guest, `nvme-async-event`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-async-event", version = 1, minimum_version = 1)]
pub struct AsyncEvent {
    /// What has happened.
    pub result: AsyncEventResult,
}

/// What has happened, `nvme-async-event-result`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-async-event-result", version = 1, minimum_version = 1)]
pub struct AsyncEventResult {
    /// 0 error, 1 health, 2 notice.
    pub event_type: u8,
    /// Which one of that type.
    pub event_info: u8,
    /// Log page that tells more.
    pub log_page: u8,
    /// Reserved.
    pub resv: u8,
}
