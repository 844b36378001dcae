//! How a recorder travels: in rounds, as RAM does, in a form of its own.
//!
//! A payload is a row of records, all numbers big-endian:
//!
//! | tag | then | meaning |
//! |---|---|---|
//! | 1 | be64 | bytes of the ring; stands in START, and both ends must have the same |
//! | 2 | be32, 4096 bytes | number and content of a page |
//! | 0 | | end of the payload |
//!
//! Pages that were never sent are zero. In postcopy they come when the device writes at the destination already, which keeps what is
//! newer; whoever goes on after a broken connection sends all again that has been sent since the guest has gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmstate::wire::stream::VersionId;
use vmstate_engine::{
    Bql, Capability, CompleteCx, DiscardCx, HandlerError, IterateCx, LoadCx, LoadSetupCx, Pending,
    Progress, ResumeCx, SaveVmHandlers, SectionWriter, SetupCx, Writes,
};
use vmstate_ram::DirtyBitmap;

use super::Recorder;
use crate::board::PAGE;

/// Name of the section.
pub(crate) const NAME: &str = "recorder";
/// Its version.
pub(crate) const VERSION: u32 = 2;

const END: u8 = 0;
const SIZE: u8 = 1;
const CONTENT: u8 = 2;

/// Bytes of a page's record.
const RECORD: u64 = 1 + 4 + PAGE;
/// Most pages of a PART in postcopy: somebody may be waiting for what another handler has.
const PIECE: u64 = 16;

/// The handlers of the section `recorder`.
#[derive(Debug)]
pub(crate) struct Handler {
    recorder: Arc<Recorder>,
    /// Pages to send.
    left: DirtyBitmap,
    next: u64,
    /// In postcopy, at either end: the ring may follow the guest.
    may_follow: bool,
    /// Pages that have been sent since the guest has gone; none before.
    followed: Option<DirtyBitmap>,
}

impl Handler {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            left: DirtyBitmap::default(),
            next: 0,
            may_follow: false,
            followed: None,
        }
    }

    /// Takes over what was written since the last time.
    fn sync(&mut self) {
        let left = &mut self.left;
        self.recorder
            .log
            .collect(|index, word| left.merge_words(index, &[word]));
    }

    fn send(
        &mut self,
        out: &mut dyn SectionWriter,
        limited: bool,
    ) -> Result<Progress, HandlerError> {
        let mut content = [0; 4096];
        let mut sent = 0;
        loop {
            let next = self.left.next_set(self.next);
            let Some(page) = next.or_else(|| self.left.next_set(0)) else {
                return Ok(Progress::Finished);
            };
            let enough = self.followed.is_some() && sent == PIECE;
            if limited && (enough || out.rate_exceeded()) {
                return Ok(Progress::More);
            }
            sent += 1;
            if let Some(followed) = &mut self.followed {
                followed.set(page);
            }
            self.left.clear(page);
            self.next = page + 1;
            let number = u32::try_from(page).unwrap_or(u32::MAX);
            self.recorder
                .read(page, &mut content)
                .map_err(|error| HandlerError::refused(error.to_string()))?;
            out.bytes(&[CONTENT])?;
            out.bytes(&number.to_be_bytes())?;
            out.bytes(&content)?;
        }
    }
}

impl SaveVmHandlers for Handler {
    fn writes(&self) -> Writes {
        Writes::LIVE | Writes::COMPLETE_POSTCOPY
    }

    fn has_postcopy(&self) -> bool {
        self.may_follow
    }

    fn save_setup(&mut self, cx: &mut SetupCx<'_>) -> Result<(), HandlerError> {
        self.may_follow = cx.settings.capabilities.has(Capability::PostcopyRam);
        self.followed = None;
        let size = self.recorder.ring.len();
        // What was marked before is sent, too: nobody has it yet. What was not, is zero.
        self.left = DirtyBitmap::new(size / PAGE);
        self.next = 0;
        self.recorder.log.collect(|_, _| ());
        for page in 0..size / PAGE {
            if self.recorder.ring.is_zero(page * PAGE, PAGE) == Ok(false) {
                self.left.set(page);
            }
        }
        cx.out.bytes(&[SIZE])?;
        cx.out.bytes(&size.to_be_bytes())?;
        Ok(cx.out.bytes(&[END])?)
    }

    fn state_pending_estimate(&mut self, pending: &mut Pending) {
        let left = self.left.count().saturating_mul(RECORD);
        let kind = match self.may_follow {
            true => &mut pending.can_postcopy,
            false => &mut pending.must_precopy,
        };
        *kind = kind.saturating_add(left);
    }

    fn state_pending_exact(&mut self, pending: &mut Pending) -> Result<(), HandlerError> {
        self.sync();
        self.state_pending_estimate(pending);
        Ok(())
    }

    fn save_live_iterate(&mut self, cx: &mut IterateCx<'_>) -> Result<Progress, HandlerError> {
        let progress = self.send(cx.out, true)?;
        cx.out.bytes(&[END])?;
        Ok(progress)
    }

    fn save_live_complete_precopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        self.sync();
        self.send(cx.out, false)?;
        Ok(cx.out.bytes(&[END])?)
    }

    fn save_postcopy_discard(&mut self, _cx: &mut DiscardCx<'_>) -> Result<(), HandlerError> {
        // Nothing must be dropped: what the destination has of the ring is written over when the rest comes.
        self.sync();
        self.followed = Some(DirtyBitmap::new(self.recorder.ring.len() / PAGE));
        Ok(())
    }

    fn save_live_complete_postcopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        self.send(cx.out, false)?;
        Ok(cx.out.bytes(&[END])?)
    }

    fn resume_prepare(&mut self, _cx: &mut ResumeCx<'_>) -> Result<(), HandlerError> {
        if let Some(followed) = &self.followed {
            self.left.union_with(followed);
        }
        Ok(())
    }

    fn save_cleanup(&mut self, _bql: &Bql<'_>) {
        self.left = DirtyBitmap::default();
        self.followed = None;
        self.may_follow = false;
    }

    fn load_setup(&mut self, cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        self.may_follow = cx.postcopy.is_some();
        Ok(())
    }

    fn load_cleanup(&mut self, _bql: &Bql<'_>) {
        self.may_follow = false;
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, _version: VersionId) -> Result<(), HandlerError> {
        let ring = &self.recorder.ring;
        let mut content = [0; 4096];
        loop {
            let mut tag = [0];
            cx.input.read_exact(&mut tag)?;
            let mut number = [0; 8];
            match tag[0] {
                END => return Ok(()),
                SIZE => {
                    cx.input.read_exact(&mut number)?;
                    let found = u64::from_be_bytes(number);
                    if found != ring.len() {
                        let reason = format!("a ring of {found} bytes, here it has {}", ring.len());
                        return Err(HandlerError::refused(reason));
                    }
                }
                CONTENT => {
                    let mut page = [0; 4];
                    cx.input.read_exact(&mut page)?;
                    let page = u64::from(u32::from_be_bytes(page));
                    cx.input.read_exact(&mut content)?;
                    self.recorder
                        .take(page, &content)
                        .map_err(|error| HandlerError::refused(error.to_string()))?;
                    if cx.bql.is_none() {
                        self.recorder.late.fetch_add(1, Ordering::AcqRel);
                    }
                }
                tag => {
                    let reason = format!("record tag {tag}, known are 0 to 2");
                    return Err(HandlerError::refused(reason));
                }
            }
        }
    }
}
