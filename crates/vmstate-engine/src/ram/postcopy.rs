//! Sending RAM after its guest has gone.

use super::counters::{Sent, When};
use super::dirty::DirtyPages;
use super::requests::{Claim, Left, LeftBlock, PageRequests};
use super::save::Sending;
use crate::channel::SectionWriter;
use crate::handlers::{DiscardSink, HandlerError, Progress, RecoveryLink};
use crate::memory::DirtyLog;

impl Sending {
    /// The guest stands still, and will run at the destination: what is dirty now is what it leaves behind.
    pub(super) fn switch(
        &mut self,
        log: &mut dyn DirtyLog,
        requests: &PageRequests,
        out: &mut dyn DiscardSink,
    ) -> Result<(), HandlerError> {
        self.sync(log)?;
        let size = self.page_size.bytes();
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (of, dirty) in self.blocks.iter().zip(std::mem::take(&mut self.dirty)) {
            if of.ignored {
                continue;
            }
            let mut block = LeftBlock {
                id: of.id,
                name: of.name.clone(),
                used_length: of.used_length,
                page_size: of.page_size,
                dirty,
            };
            block.whole_pages(self.page_size);
            block.runs(|first, pages| {
                out.discard(
                    &of.name,
                    first.saturating_mul(size),
                    pages.saturating_mul(size),
                )
            })?;
            blocks.push(block);
        }
        self.writer.forget();
        self.postcopy = true;
        let separate = self
            .preempt
            .then(|| (self.writer.fork(), self.counters().clone()));
        requests.begin(Left::new(self.page_size, blocks), separate);
        self.counters().set_remaining(requests.remaining());
        Ok(())
    }

    /// Sends pages that are asked for; if there are none, others: until somebody asks or the rate is exceeded, or all.
    pub(super) fn send_left(
        &mut self,
        out: &mut dyn SectionWriter,
        requests: &PageRequests,
        limited: bool,
    ) -> Result<Progress, HandlerError> {
        let mut sent = Sent::default();
        let result = self.send_claims(out, requests, limited, &mut sent);
        self.counters().sent(&sent, When::Postcopy);
        let left = requests.remaining();
        self.counters().set_remaining(left);
        result?;
        Ok(match left {
            0 => Progress::Finished,
            _ => Progress::More,
        })
    }

    fn send_claims(
        &mut self,
        out: &mut dyn SectionWriter,
        requests: &PageRequests,
        limited: bool,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        while let Some(claim) = requests.claim_requested() {
            self.send_claim(out, &claim, sent)?;
        }
        sent.requested = sent.pages();
        // What somebody waits for leaves before anything else is added.
        let mut goes_on = sent.requested == 0 || !limited;
        while goes_on && !(limited && (out.rate_exceeded() || requests.is_urgent())) {
            match requests.claim_next() {
                Some(claim) => self.send_claim(out, &claim, sent)?,
                None => goes_on = false,
            }
        }
        self.writer.end(out, sent)
    }

    fn send_claim(
        &mut self,
        out: &mut dyn SectionWriter,
        claim: &Claim,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        for (index, bits) in claim.words() {
            self.writer.word(out, claim.id, index, bits, sent)?;
        }
        Ok(())
    }

    /// After a broken connection: what the destination does not have is left.
    pub(super) fn resume(
        &mut self,
        link: &mut dyn RecoveryLink,
        requests: &PageRequests,
    ) -> Result<(), HandlerError> {
        let mut all = Vec::with_capacity(self.blocks.len());
        for block in self.blocks.iter().filter(|block| !block.ignored) {
            let pages = self.page_size.pages_in(block.used_length);
            let received = link.received_bitmap(&block.name, pages)?;
            let mut dirty = DirtyPages::new(pages);
            for index in 0..pages.div_ceil(64) {
                let word = usize::try_from(index)
                    .ok()
                    .and_then(|at| received.get(at).copied());
                dirty.merge_word(index, !word.unwrap_or(0));
            }
            all.push(dirty);
        }
        self.writer.forget();
        let separate = self
            .preempt
            .then(|| (self.writer.fork(), self.counters().clone()));
        requests.again(all, separate);
        self.counters().set_remaining(requests.remaining());
        Ok(())
    }
}
