//! A live handler that is not RAM: a device with half a MiB of state that changes all the time, and its own dirty log.
//!
//! | tag | then | meaning |
//! |---|---|---|
//! | 1 | be32 | number of chunks; the first thing in START |
//! | 2 | be32, 512 bytes | a chunk |
//! | 0 | | end of the payload |
//!
//! In postcopy, chunks follow the guest: the last of them in PARTs and the END behind the package.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use vmstate_engine::{
    Bql, Capability, CompleteCx, DiscardCx, HandlerError, IterateCx, LoadCx, LoadSetupCx, Pending,
    Progress, ResumeCx, SaveVmHandlers, SectionWriter, SetupCx, Writes,
};
use vmstate_wire::stream::VersionId;

const CHUNK: usize = 512;

/// The device: what its guest does to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mill {
    pub(crate) state: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Chunks that have come without the lock: behind the guest.
    pub(crate) late: usize,
}

impl Mill {
    pub(crate) fn new(chunks: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            state: vec![0; chunks * CHUNK],
            dirty: BTreeSet::new(),
            late: 0,
        }))
    }

    pub(crate) fn turn(&mut self, seed: usize) {
        let at = seed.wrapping_mul(7919) % self.state.len();
        self.state[at] = self.state[at].wrapping_add(1);
        self.dirty.insert(at / CHUNK);
    }
}

/// Its handlers.
pub(crate) struct Grinder {
    mill: Arc<Mutex<Mill>>,
    /// Chunks to send, as of the last exact query.
    left: BTreeSet<usize>,
    /// In postcopy: chunks may follow the guest.
    follows: bool,
    /// What has been sent since the guest has gone; none before.
    followed: Option<BTreeSet<usize>>,
}

impl Grinder {
    pub(crate) fn new(mill: Arc<Mutex<Mill>>) -> Self {
        Self {
            mill,
            left: BTreeSet::new(),
            follows: false,
            followed: None,
        }
    }

    fn sync(&mut self) {
        self.left.append(&mut self.mill.lock().unwrap().dirty);
    }

    fn send(
        &mut self,
        out: &mut dyn SectionWriter,
        limited: bool,
    ) -> Result<Progress, HandlerError> {
        let mut progress = Progress::Finished;
        while let Some(chunk) = self.left.pop_first() {
            let data = self.mill.lock().unwrap().state[chunk * CHUNK..][..CHUNK].to_vec();
            // Also one that does not get through.
            let few = self
                .followed
                .as_mut()
                .map(|followed| followed.insert(chunk));
            out.bytes(&[2])?;
            out.bytes(&u32::try_from(chunk).unwrap().to_be_bytes())?;
            out.bytes(&data)?;
            if limited && (few.is_some() || out.rate_exceeded()) {
                progress = Progress::More;
                break;
            }
        }
        out.bytes(&[0])?;
        Ok(progress)
    }
}

impl SaveVmHandlers for Grinder {
    fn writes(&self) -> Writes {
        Writes::LIVE | Writes::COMPLETE_POSTCOPY
    }

    fn has_postcopy(&self) -> bool {
        self.follows
    }

    fn save_setup(&mut self, cx: &mut SetupCx<'_>) -> Result<(), HandlerError> {
        self.follows = cx.settings.capabilities.has(Capability::PostcopyRam);
        self.followed = None;
        let mut mill = self.mill.lock().unwrap();
        mill.dirty.clear();
        let chunks = mill.state.len() / CHUNK;
        self.left = (0..chunks).collect();
        cx.out.bytes(&[1])?;
        cx.out
            .bytes(&u32::try_from(chunks).unwrap().to_be_bytes())?;
        Ok(cx.out.bytes(&[0])?)
    }

    fn state_pending_estimate(&mut self, pending: &mut Pending) {
        let left = (self.left.len() * CHUNK) as u64;
        match self.follows {
            true => pending.can_postcopy += left,
            false => pending.must_precopy += left,
        }
    }

    fn state_pending_exact(&mut self, pending: &mut Pending) -> Result<(), HandlerError> {
        self.sync();
        self.state_pending_estimate(pending);
        Ok(())
    }

    fn save_live_iterate(&mut self, cx: &mut IterateCx<'_>) -> Result<Progress, HandlerError> {
        self.send(cx.out, true)
    }

    fn save_live_complete_precopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        self.sync();
        self.send(cx.out, false)?;
        Ok(())
    }

    fn save_postcopy_discard(&mut self, _cx: &mut DiscardCx<'_>) -> Result<(), HandlerError> {
        self.sync();
        self.followed = Some(BTreeSet::new());
        Ok(())
    }

    fn save_live_complete_postcopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        self.send(cx.out, false)?;
        Ok(())
    }

    fn resume_prepare(&mut self, _cx: &mut ResumeCx<'_>) -> Result<(), HandlerError> {
        self.left.extend(self.followed.iter().flatten());
        Ok(())
    }

    fn save_cleanup(&mut self, _bql: &Bql<'_>) {
        self.left.clear();
        self.followed = None;
    }

    fn load_setup(&mut self, cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        self.follows = cx.postcopy.is_some();
        Ok(())
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, _version: VersionId) -> Result<(), HandlerError> {
        let mut mill = self.mill.lock().unwrap();
        loop {
            let mut tag = [0];
            cx.input.read_exact(&mut tag)?;
            let mut number = [0; 4];
            if tag[0] != 0 {
                cx.input.read_exact(&mut number)?;
            }
            let number = u32::from_be_bytes(number) as usize;
            match tag[0] {
                0 => return Ok(()),
                1 if number * CHUNK == mill.state.len() => {}
                2 if number < mill.state.len() / CHUNK => {
                    cx.input
                        .read_exact(&mut mill.state[number * CHUNK..][..CHUNK])?;
                    mill.late += usize::from(cx.bql.is_none());
                }
                _ => return Err(HandlerError::refused("the mill does not know this")),
            }
        }
    }
}
