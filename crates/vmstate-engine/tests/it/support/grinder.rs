//! A live handler that is not RAM: a device with half a MiB of state that changes all the time, and its own dirty log.
//!
//! | tag | then | meaning |
//! |---|---|---|
//! | 1 | be32 | number of chunks; the first thing in START |
//! | 2 | be32, 512 bytes | a chunk |
//! | 0 | | end of the payload |

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use vmstate_engine::{
    Bql, CompleteCx, HandlerError, IterateCx, LoadCx, Pending, Progress, SaveVmHandlers,
    SectionWriter, SetupCx,
};
use vmstate_wire::stream::VersionId;

const CHUNK: usize = 512;

/// The device: what its guest does to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mill {
    pub(crate) state: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Mill {
    pub(crate) fn new(chunks: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            state: vec![0; chunks * CHUNK],
            dirty: BTreeSet::new(),
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
}

impl Grinder {
    pub(crate) fn new(mill: Arc<Mutex<Mill>>) -> Self {
        Self {
            mill,
            left: BTreeSet::new(),
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
            out.bytes(&[2])?;
            out.bytes(&u32::try_from(chunk).unwrap().to_be_bytes())?;
            out.bytes(&data)?;
            if limited && out.rate_exceeded() {
                progress = Progress::More;
                break;
            }
        }
        out.bytes(&[0])?;
        Ok(progress)
    }
}

impl SaveVmHandlers for Grinder {
    fn save_setup(&mut self, cx: &mut SetupCx<'_>) -> Result<(), HandlerError> {
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
        pending.must_precopy += (self.left.len() * CHUNK) as u64;
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

    fn save_cleanup(&mut self, _bql: &Bql<'_>) {
        self.left.clear();
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
                }
                _ => return Err(HandlerError::refused("the mill does not know this")),
            }
        }
    }
}
