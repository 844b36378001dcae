//! Memory that is left behind when its guest has gone, and what the guest asks for.

mod left;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstate_ram::{BlockName, RamFlags};

use super::counters::{RamCounters, Sent, When};
use super::dirty::DirtyPages;
use super::pages::PageWriter;
use crate::channel::ChannelWriter;
use crate::handlers::HandlerError;

pub(super) use self::left::{Claim, Left, LeftBlock};

/// Target pages that go at once where a requested page would have to wait behind them.
const FEW: u32 = 16;
/// And where it would not.
const MANY: u32 = 64;

/// A page request that makes no sense: the destination is broken, or hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageRequestError {
    /// The guest has not gone.
    #[error("pages are requested while the guest is here")]
    TooEarly,
    /// There is no such RAM block.
    #[error("pages of the unknown RAM block {0} are requested")]
    UnknownBlock(BlockName),
    /// The first request, or the first after a recovery, names no block.
    #[error("pages are requested before a RAM block has been named")]
    NoBlock,
    /// Not whole pages, or not in the block.
    #[error(
        "{length} bytes at {start:#x} of RAM block {block} are requested, which has {used:#x} bytes in pages of {page_size:#x}"
    )]
    Range {
        /// The block.
        block: BlockName,
        /// First byte.
        start: u64,
        /// Bytes.
        length: u64,
        /// Bytes of the block.
        used: u64,
        /// Bytes of one of its pages.
        page_size: u64,
    },
}

/// The pages that a destination asks for in postcopy, shared by whoever hears it and whoever sends them.
///
/// Each page is queued once however often it is asked for, and not at all when it has been sent: memory and time that requests
/// take are bounded by the guest's memory.
///
/// ```
/// use vmstate_engine::PageRequests;
/// use vmstate_ram::BlockName;
///
/// let requests = PageRequests::default();
/// let refused = requests.push(Some(&BlockName::new(b"board.ram")?), 0, 4096);
/// assert_eq!(
///     refused.unwrap_err().to_string(),
///     "pages are requested while the guest is here"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct PageRequests(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody waits for pages.
    waiting: AtomicBool,
}

#[derive(Default)]
struct State {
    left: Option<Left>,
    /// What sends requested pages, until a thread takes it.
    sender: Option<(PageWriter, RamCounters)>,
    /// Requested pages go over a channel of their own.
    separate: bool,
}

impl fmt::Debug for PageRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageRequests")
            .field("waiting", &self.is_waiting())
            .finish_non_exhaustive()
    }
}

impl PageRequests {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues pages that the destination asks for: `length` bytes from `start` on of a block, or of the one named last.
    ///
    /// # Errors
    ///
    /// [`PageRequestError`]. Nothing is queued then.
    pub fn push(
        &self,
        block: Option<&BlockName>,
        start: u64,
        length: u64,
    ) -> Result<(), PageRequestError> {
        let mut state = self.state();
        let left = state.left.as_mut().ok_or(PageRequestError::TooEarly)?;
        left.request(block, start, length)?;
        let waiting = left.is_waiting();
        drop(state);
        if waiting {
            self.0.waiting.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether pages that have been asked for have not been taken yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// Whether the migration's main thread is to send the pages that are asked for: there is no other channel.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.is_waiting() && !self.state().separate
    }

    /// What sends requested pages over a channel of their own, once; none if the migration has no such channel.
    #[must_use]
    pub fn urgent_pages(&self) -> Option<UrgentPages> {
        let mut state = self.state();
        let (writer, counters) = state.sender.take()?;
        drop(state);
        Some(UrgentPages {
            requests: self.clone(),
            writer,
            counters,
        })
    }

    /// The guest goes, and leaves this behind. `separate` is what sends requested pages over a channel of their own.
    pub(super) fn begin(&self, left: Left, separate: Option<(PageWriter, RamCounters)>) {
        let mut state = self.state();
        state.left = Some(left);
        state.separate = separate.is_some();
        state.sender = separate;
        self.0.waiting.store(false, Ordering::Release);
    }

    /// The migration is over.
    pub(super) fn end(&self) {
        *self.state() = State::default();
        self.0.waiting.store(false, Ordering::Release);
    }

    /// After a broken connection: exactly `dirty` is left, in the order of the blocks, and nothing is asked for.
    pub(super) fn again(
        &self,
        dirty: Vec<DirtyPages>,
        separate: Option<(PageWriter, RamCounters)>,
    ) {
        let mut state = self.state();
        state.separate = separate.is_some();
        state.sender = separate;
        if let Some(left) = &mut state.left {
            left.begin_again(dirty);
        }
        self.0.waiting.store(false, Ordering::Release);
    }

    fn change<R>(&self, change: impl FnOnce(&mut Left) -> R) -> Option<R> {
        let mut state = self.state();
        let result = state.left.as_mut().map(change);
        let waiting = state.left.as_ref().is_some_and(Left::is_waiting);
        self.0.waiting.store(waiting, Ordering::Release);
        result
    }

    /// Takes pages that are asked for, if the main thread is to send them.
    pub(super) fn claim_requested(&self) -> Option<Claim> {
        if !self.is_waiting() {
            return None;
        }
        let mut state = self.state();
        if state.separate {
            return None;
        }
        let left = state.left.as_mut()?;
        let claim = left.claim_requested();
        self.0.waiting.store(left.is_waiting(), Ordering::Release);
        claim
    }

    /// Takes the pages that come next: few if others may be asked for meanwhile and go over the same channel.
    pub(super) fn claim_next(&self) -> Option<Claim> {
        let mut state = self.state();
        let most = if state.separate { MANY } else { FEW };
        state.left.as_mut()?.claim_next(most)
    }

    /// Bytes that are left, and bytes that have been taken and may not have been given to their channel.
    pub(super) fn remaining(&self) -> u64 {
        let state = self.state();
        state.left.as_ref().map_or(0, Left::remaining)
    }
}

/// Sends requested pages over a channel of their own: page records without any framing, each page flushed.
///
/// Wire: QEMU 7.2 to 11.1, capability `postcopy-preempt`.
pub struct UrgentPages {
    requests: PageRequests,
    writer: PageWriter,
    counters: RamCounters,
}

impl fmt::Debug for UrgentPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrgentPages").finish_non_exhaustive()
    }
}

impl UrgentPages {
    /// Sends the page that has been asked for first, if there is one, and flushes. `false`: nobody waits for any.
    ///
    /// # Errors
    ///
    /// [`HandlerError`] if the channel broke.
    pub fn send(&mut self, out: &mut dyn ChannelWriter) -> Result<bool, HandlerError> {
        let Some(claim) = self.take() else {
            return Ok(false);
        };
        let mut sent = Sent::default();
        let result = self
            .write(out, &claim, &mut sent)
            .and_then(|()| Ok(out.flush()?));
        sent.requested = sent.pages();
        self.counters.sent(&sent, When::Postcopy);
        // What may not have arrived is not done, even when nothing else is left: the connection is broken, and the next one begins
        // with what the destination has.
        result?;
        self.requests.change(|left| left.delivered(&claim));
        self.counters.set_remaining(self.requests.remaining());
        Ok(true)
    }

    /// Writes the mark behind the last page, and flushes. For [`preempts_early`](crate::Settings::preempts_early) alone, when nothing is
    /// left: those destinations read the channel up to it.
    ///
    /// # Errors
    ///
    /// [`HandlerError`] if the channel broke.
    pub fn end(out: &mut dyn ChannelWriter) -> Result<(), HandlerError> {
        out.bytes(&RamFlags::EOS.bits().to_be_bytes())?;
        Ok(out.flush()?)
    }

    fn write(
        &mut self,
        out: &mut dyn ChannelWriter,
        claim: &Claim,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        for (index, bits) in claim.words() {
            self.writer.word(out, claim.id, index, bits, sent)?;
        }
        self.writer.write_records(out)
    }

    /// The page that has been asked for first.
    fn take(&self) -> Option<Claim> {
        let shared = &self.requests.0;
        let mut state = self.requests.state();
        let left = state.left.as_mut()?;
        let claim = left.claim_requested();
        shared.waiting.store(left.is_waiting(), Ordering::Release);
        if let Some(claim) = &claim {
            left.under_way(claim);
        }
        claim
    }
}
