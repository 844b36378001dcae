//! The small machine in postcopy: it leaves before its memory, or arrives before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstate_engine::postcopy::{FaultAnswer, MissingPages, PostcopyRam};
use vmstate_engine::{
    Bql, GuestMemory as _, Identity, Incoming, LoadError, LoadStep, MemoryError, PageRequests,
    Progress, ReceivedBitmaps, Registry, SaveError, Settings,
};
use vmstate_io::live::BerDecoder;
use vmstate_ram::{BlockId, BlockName, DirtyBitmap};

use super::{Form, Guest, In, LIMITS, Out, PAGE, PAGES, Pages};

/// A host that knows which pages are missing, and holds the engine to what it must not do with the others.
#[derive(Debug)]
pub struct Host {
    memory: Arc<Pages>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    serving: bool,
    /// Block and offset of pages that are not there.
    absent: BTreeSet<(u32, u64)>,
}

impl Host {
    fn new(memory: Arc<Pages>) -> Self {
        Self {
            memory,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page has been written without being placed.
    pub(super) fn written(&self, block: BlockId, offset: u64) {
        let mut state = self.state();
        assert!(
            !state.serving,
            "{offset:#x} is written when others may look"
        );
        state.absent.remove(&(block.0, offset));
    }

    fn pages(block: BlockId, offset: u64, length: u64) -> impl Iterator<Item = (u32, u64)> {
        assert!(length > 0 && offset.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        (offset..offset + length)
            .step_by(4096)
            .map(move |offset| (block.0, offset))
    }

    fn placed(&self, block: BlockId, offset: u64, length: u64) {
        let mut state = self.state();
        assert!(state.serving);
        for page in Self::pages(block, offset, length) {
            assert!(state.absent.remove(&page), "{page:?} is there already");
        }
    }
}

impl MissingPages for Host {
    fn prepare(&self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn discard(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let mut state = self.state();
        assert!(!state.serving, "nothing is dropped when the guest may run");
        state.absent.extend(Self::pages(block, offset, length));
        self.memory.zero(block, offset, length)
    }

    fn serve(&self) -> Result<(), MemoryError> {
        self.state().serving = true;
        Ok(())
    }

    fn place(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.placed(block, offset, data.len() as u64);
        self.memory.copy_in(block, offset, data)
    }

    fn place_zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        self.placed(block, offset, length);
        self.memory.zero(block, offset, length)
    }
}

/// A machine on its way in.
struct Arrival<'g> {
    guest: &'g mut Guest,
    ram: Arc<PostcopyRam>,
    host: Arc<Host>,
    /// The sections that come behind the guest.
    late: Registry,
    bql: Bql<'static>,
}

impl Guest {
    /// Loads a machine that may run before its memory has come: from one connection and, if that ends when it runs, another one;
    /// `preempt` is what the channel for requested pages carries. All come in pieces of `piece` bytes. Returns what has not arrived, in
    /// pages; none if the first connection has ended when it runs: how far it was read is then a matter of the pieces.
    ///
    /// # Errors
    /// Whatever is wrong with the last connection.
    ///
    /// # Panics
    /// If the engine writes over a page that is there, or loses count of those that are not.
    pub fn arrive(
        &mut self,
        settings: &Settings,
        connections: [&[u8]; 2],
        preempt: &[u8],
        piece: usize,
    ) -> Result<Option<u64>, LoadError> {
        self.arrive_in(Form::Qemu, settings, connections, preempt, piece)
    }

    /// As [`Guest::arrive`], in QEMU's stream or in VM state over BER.
    ///
    /// # Errors
    /// As [`Guest::arrive`].
    ///
    /// # Panics
    /// As [`Guest::arrive`].
    pub fn arrive_in(
        &mut self,
        form: Form,
        settings: &Settings,
        connections: [&[u8]; 2],
        preempt: &[u8],
        piece: usize,
    ) -> Result<Option<u64>, LoadError> {
        let host = Arc::new(Host::new(self.memory.clone()));
        let ram = PostcopyRam::new(self.memory.clone(), host.clone());
        let mut arrival = Arrival {
            guest: self,
            ram: Arc::new(ram),
            host,
            late: Registry::new(),
            bql: Bql::holding(()),
        };
        let stream = Incoming::new(settings.clone(), Identity::new("guest"));
        let stream = stream.with_postcopy(Arc::clone(&arrival.ram));
        let mut stream = stream.with_limits(LIMITS);
        let [first, second] = connections;
        let mut input = arrival.input(first, piece);
        let mut urgent = None;
        if form == Form::Ber {
            let (decoder, session) = arrival.guest.decoder(&mut input)?;
            stream.change_format(Box::new(decoder));
            urgent = Some(BerDecoder::urgent(arrival.guest.memory.clone(), session));
        }
        let mut result = arrival.first(&mut stream, &mut input);
        if arrival.ram.is_listening() {
            let mut input = arrival.input(preempt, piece);
            if let Some(mut channel) = arrival.ram.preempt_channel() {
                // Its pages count, however it ends.
                let _ = match &mut urgent {
                    Some(decoder) => decoder.run_urgent(&mut channel, &mut input),
                    None => channel.run(&mut input),
                };
            }
            arrival.count();
        }
        let broken = matches!(result, Ok(true));
        if broken && !second.is_empty() {
            stream.interrupted();
            let mut input = arrival.input(second, piece);
            result = arrival.more(&mut stream, &mut input).map(|()| false);
            arrival.count();
        }
        let missing = arrival.ram.missing();
        let pages = missing.iter().map(|block| block.pages).sum();
        result.map(|_| (!broken).then_some(pages))
    }
}

impl Arrival<'_> {
    fn input<'b>(&self, bytes: &'b [u8], piece: usize) -> In<'b> {
        In {
            memory: self.guest.memory.clone(),
            bytes,
            position: 0,
            shown: 0,
            piece,
            host: Some(Arc::clone(&self.host)),
        }
    }

    /// Loads up to the end of the stream; `true` if the connection breaks when the machine runs.
    fn first(&mut self, stream: &mut Incoming, input: &mut In<'_>) -> Result<bool, LoadError> {
        stream.begin(input)?;
        stream.setup(&self.bql, &mut self.guest.registry)?;
        loop {
            match stream.next(input)? {
                LoadStep::OpenReturnPath | LoadStep::Send(_) => {}
                LoadStep::Section => {
                    stream.section(Some(&self.bql), &mut self.guest.registry, input)?;
                }
                LoadStep::SwitchoverStart => {
                    stream.switchover_start(Some(&self.bql), &mut self.guest.registry)?;
                }
                LoadStep::Eof => {
                    stream.trailer(input)?;
                    return Ok(false);
                }
                LoadStep::Package => break,
                _ => return Err(LoadError::Order("too early")),
            }
        }
        let (mut inner, mut package) = stream.package(input)?;
        loop {
            match inner.next(&mut package)? {
                LoadStep::Send(_) => {}
                LoadStep::Section => {
                    inner.section(Some(&self.bql), &mut self.guest.registry, &mut package)?;
                }
                LoadStep::SwitchoverStart => {
                    inner.switchover_start(Some(&self.bql), &mut self.guest.registry)?;
                }
                LoadStep::Listen => {
                    self.late = self.guest.registry.split_postcopy();
                    self.count();
                    self.touch();
                }
                LoadStep::Run => break,
                _ => return Err(LoadError::Order("in a package")),
            }
        }
        Ok(self.more(stream, input).is_err())
    }

    /// Loads what comes when the machine runs.
    fn more(&mut self, stream: &mut Incoming, input: &mut In<'_>) -> Result<(), LoadError> {
        loop {
            match stream.next(input)? {
                LoadStep::OpenReturnPath | LoadStep::Send(_) | LoadStep::SwitchoverStart => {}
                LoadStep::Section => stream.section(None, &mut self.late, input)?,
                LoadStep::Bitmap { block, received } => self.compare(block.as_bytes(), &received),
                LoadStep::Resume => {
                    for request in self.ram.outstanding() {
                        let page = (request.block.0, request.offset);
                        assert!(self.host.state().absent.contains(&page), "{request:?}");
                    }
                }
                LoadStep::Eof => {
                    let complete = self.ram.complete();
                    assert!(complete.is_err() || self.ram.outstanding().is_empty());
                    return Ok(());
                }
                _ => return Err(LoadError::Order("when the guest runs")),
            }
        }
    }

    /// Somebody looks at every second page.
    fn touch(&self) {
        for (id, (_, pages)) in (0..).map(BlockId).zip(PAGES) {
            for page in (0..pages).step_by(2) {
                let offset = page * PAGE;
                let absent = self.host.state().absent.contains(&(id.0, offset));
                match self.ram.fault(id, offset + 77) {
                    FaultAnswer::Ask(request) => {
                        let asked = (request.block, request.offset, u64::from(request.length));
                        assert_eq!(asked, (id, offset, PAGE));
                        assert!(absent);
                        assert_eq!(self.ram.fault(id, offset), FaultAnswer::Asked);
                    }
                    FaultAnswer::Arrived if absent => {
                        // It came as zeros.
                        self.host.place_zero(id, offset, PAGE).expect("a page");
                    }
                    FaultAnswer::Arrived => {}
                    other => panic!("{other:?} of page {page}"),
                }
            }
            assert_eq!(self.ram.fault(id, pages * PAGE), FaultAnswer::Outside);
        }
    }

    /// What has not arrived is not there.
    fn count(&self) {
        let absent = self.host.state().absent.len() as u64;
        let missing: u64 = self.ram.missing().iter().map(|block| block.pages).sum();
        assert!(missing <= absent, "{missing} of {absent}");
    }

    /// What the source is told has arrived is not missing, and the rest is.
    fn compare(&self, block: &[u8], received: &DirtyBitmap) {
        let index = PAGES.iter().position(|(name, _)| *name == block);
        let (_, pages) = PAGES[index.expect("a block of this machine")];
        let missing = self.ram.missing();
        let missing = missing.iter().find(|one| one.block.as_bytes() == block);
        assert_eq!(received.pages(), pages);
        assert_eq!(received.count() + missing.map_or(0, |one| one.pages), pages);
    }
}

/// What a machine has written that has left before its memory.
#[derive(Debug)]
pub struct Departed {
    /// The main channel, up to the end of the package.
    pub stream: Vec<u8>,
    /// The main channel, behind it.
    pub rest: Vec<u8>,
    /// Another connection in the place of the rest: to a destination that has nothing.
    pub again: Vec<u8>,
}

/// A destination where nothing has arrived.
struct Nothing(u64);

impl ReceivedBitmaps for Nothing {
    fn expect(&mut self, _block: &BlockName, pages: u64) {
        self.0 = pages;
    }

    fn wait(&mut self) -> Option<Vec<u64>> {
        Some(vec![0; usize::try_from(self.0.div_ceil(64)).ok()?])
    }
}

impl Guest {
    /// Leaves before its memory: all of it is dirty when the guest stops. `heard` is what comes back before anything else is sent.
    ///
    /// # Errors
    /// None that this machine gives rise to.
    ///
    /// # Panics
    /// If there is no end.
    pub fn depart(
        &mut self,
        form: Form,
        settings: &Settings,
        heard: impl FnOnce(&PageRequests),
    ) -> Result<Departed, SaveError> {
        let bql = Bql::holding(());
        let (mut stream, bytes) = self.outgoing(form, settings);
        let mut out = Out {
            memory: self.memory.clone(),
            bytes,
        };
        stream.begin(&mut out)?;
        stream.setup(&bql, &mut self.registry, &mut out)?;
        stream.postcopy_prepare(&mut self.registry, &mut out)?;
        stream.package(&bql, &mut self.registry, &mut out)?;
        stream.hand_over(&mut out)?;
        heard(&self.requests);
        let before = std::mem::take(&mut out.bytes);
        let mut rounds = 0;
        while stream.iterate(&mut self.registry, &mut out)? == Progress::More {
            rounds += 1;
            assert!(rounds < 100, "no end");
        }
        stream.complete_postcopy(&bql, &mut self.registry, &mut out)?;
        let rest = std::mem::take(&mut out.bytes);
        stream.recover(&mut self.registry, &mut out, &mut Nothing(0))?;
        stream.resume(&mut out)?;
        stream.iterate(&mut self.registry, &mut out)?;
        stream.complete_postcopy(&bql, &mut self.registry, &mut out)?;
        self.registry.save_cleanup(&bql);
        Ok(Departed {
            stream: before,
            rest,
            again: out.bytes,
        })
    }
}
