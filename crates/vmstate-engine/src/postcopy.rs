//! The destination's side of postcopy: which pages have arrived, which are missing, which have been asked for.

mod error;
mod pages;
mod place;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstate_ram::{BlockId, BlockName, DirtyBitmap};
use vmstate_wire::stream::{BlockName as WireName, DiscardRange, PostcopyAdvise};

pub use self::error::PostcopyError;
pub use self::place::PreemptChannel;

pub(crate) use self::place::{PageForm, Placer};

use self::pages::PageSet;
use crate::memory::{GuestBlock, GuestMemory, MemoryError};

/// What postcopy needs of the host: memory whose missing pages come when somebody waits for them. Linux: userfaultfd.
///
/// Offsets and lengths are multiples of the block's page size and inside of it.
pub trait MissingPages: Send + Sync {
    /// Finds out whether the host can do it, before anything depends on it, and keeps the kernel from making up pages of
    /// its own (transparent huge pages).
    ///
    /// # Errors
    ///
    /// Why it cannot, and what to do about it.
    fn prepare(&self) -> Result<(), MemoryError>;

    /// Drops pages: they are missing then.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    fn discard(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError>;

    /// From now on, whoever touches a missing page waits until it is placed.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    fn serve(&self) -> Result<(), MemoryError>;

    /// Gives missing pages their content, each whole and at once, and wakes who waits. Pages that are there must stay as
    /// they are.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    fn place(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError>;

    /// As [`place`](Self::place), with zeros.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    fn place_zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError>;

    /// These pages have been placed, and count as arrived: nobody begins to wait for them any more.
    fn arrived(&self, block: BlockId, offset: u64, length: u64) {
        let _ = (block, offset, length);
    }
}

/// Pages that the source is asked for: one page of the memory behind a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The block, by its number in [`GuestMemory::blocks`].
    pub block: BlockId,
    /// First byte; a multiple of the block's page size.
    pub offset: u64,
    /// The block's page size in bytes.
    pub length: u32,
}

/// What to do for a thread that waits for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAnswer {
    /// Send this to the source.
    Ask(PageRequest),
    /// It has been asked for already.
    Asked,
    /// It has arrived. If it is not there all the same, it came as zeros while the guest ran at the source, and takes no
    /// memory yet: place zeros there, and wake who waits.
    Arrived,
    /// There is no such page.
    Outside,
}

/// Pages that have not arrived, of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingBlock {
    /// The block.
    pub block: BlockName,
    /// How many target pages.
    pub pages: u64,
    /// The first of them, as an offset in bytes.
    pub first: u64,
}

/// What arrived after the guest had been started here, in pages of the memory behind the blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PostcopyPages {
    /// That somebody waited for.
    pub requested: u64,
    /// That came by themselves.
    pub background: u64,
    /// That came again, and were dropped.
    pub repeated: u64,
}

/// How far postcopy is. QEMU has the same stages and one more: its `DISCARD` allows what `ADVISE` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    None,
    Advised,
    Listening,
    Running,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "before POSTCOPY_ADVISE",
            Self::Advised => "before POSTCOPY_LISTEN",
            Self::Listening => "before POSTCOPY_RUN",
            Self::Running => "when the guest has been started",
        })
    }
}

/// One block's pages.
#[derive(Debug)]
struct Block {
    known: GuestBlock,
    /// Target pages that have arrived.
    received: PageSet,
    /// Target pages that have been asked for and have not arrived; the first of each page behind the block.
    asked: PageSet,
    /// Target pages that the source has said to drop, and so must send again.
    owed: Mutex<DirtyBitmap>,
}

/// The RAM of a destination that may run before all of it has arrived, shared by whoever reads channels, serves faults
/// and shows how it goes.
///
/// ```text
/// ADVISE: may it be?   precopy: what has arrived   DISCARD: what is out of date
/// LISTEN: from here on, what has not arrived is missing, and whoever touches it waits
/// fault: ask the source, once for each page        pages: placed once, never written over
/// ```
///
/// After a broken connection it knows what is missing, and what to ask for again.
pub struct PostcopyRam {
    host: Arc<dyn MissingPages>,
    memory: Arc<dyn GuestMemory>,
    blocks: Vec<Block>,
    stage: Mutex<Stage>,
    /// How often the connection has broken: what was half received before is dropped.
    breaks: AtomicU64,
    /// What reads the preempt channel, once the source has listed its blocks.
    preempt: Mutex<Option<(PageForm, Arc<[BlockId]>)>>,
    requested: AtomicU64,
    background: AtomicU64,
    repeated: AtomicU64,
}

impl fmt::Debug for PostcopyRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostcopyRam")
            .field("stage", &*lock(&self.stage))
            .field("missing", &self.missing())
            .finish_non_exhaustive()
    }
}

/// Takes a lock. What it protects is one value, which is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PostcopyRam {
    /// The RAM of one incoming migration, of which nothing has arrived.
    #[must_use]
    pub fn new(memory: Arc<dyn GuestMemory>, host: Arc<dyn MissingPages>) -> Self {
        let page = memory.page_size().bytes();
        let blocks = memory.blocks().into_iter().map(|known| {
            let pages = known.used_length.div_ceil(page);
            Block {
                known,
                received: PageSet::new(pages),
                asked: PageSet::new(pages),
                owed: Mutex::new(DirtyBitmap::new(pages)),
            }
        });
        Self {
            blocks: blocks.collect(),
            host,
            memory,
            stage: Mutex::new(Stage::None),
            breaks: AtomicU64::new(0),
            preempt: Mutex::new(None),
            requested: AtomicU64::new(0),
            background: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        }
    }

    /// `POSTCOPY_ADVISE`: whether this machine is made as the source's, and its host can do it.
    pub(crate) fn advise(&self, advise: Option<PostcopyAdvise>) -> Result<(), PostcopyError> {
        let mut stage = lock(&self.stage);
        expect("POSTCOPY_ADVISE", *stage, Stage::None)?;
        let Some(advise) = advise else {
            return Err(PostcopyError::WithoutRam);
        };
        let local = PostcopyAdvise {
            page_sizes: self.blocks.iter().fold(0, |or, b| or | b.known.page_size),
            target_page_size: self.page(),
        };
        if advise != local {
            return Err(PostcopyError::PageSizes {
                found: advise,
                local,
            });
        }
        self.host.prepare()?;
        *stage = Stage::Advised;
        Ok(())
    }

    /// `POSTCOPY_RAM_DISCARD`: what has arrived of these ranges is out of date.
    pub(crate) fn discard(
        &self,
        name: &WireName,
        ranges: &[DiscardRange],
    ) -> Result<(), PostcopyError> {
        let stage = lock(&self.stage);
        expect("POSTCOPY_RAM_DISCARD", *stage, Stage::Advised)?;
        let (id, block) = self.find(name)?;
        for DiscardRange { start, length } in ranges.iter().copied() {
            let end = start.checked_add(length);
            let inside = end.is_some_and(|end| end <= self.memory.used_length(id));
            let size = block.known.page_size;
            let whole = start.is_multiple_of(size) && length.is_multiple_of(size);
            if !inside || !whole || length == 0 {
                return Err(PostcopyError::Range {
                    block: block.known.idstr.clone(),
                    start,
                    length,
                });
            }
            let pages = self.pages(start, length);
            block.received.clear(pages.clone());
            lock(&block.owed).set_range(pages);
            self.host.discard(id, start, length)?;
        }
        Ok(())
    }

    /// `POSTCOPY_LISTEN`: from here on, exactly what has arrived is there.
    pub(crate) fn listen(&self) -> Result<(), PostcopyError> {
        let mut stage = lock(&self.stage);
        expect("POSTCOPY_LISTEN", *stage, Stage::Advised)?;
        for (id, block) in self.numbered() {
            let per_host = block.known.page_size.checked_div(self.page()).unwrap_or(1);
            block.received.keep_whole(per_host);
            for run in block.received.missing().runs() {
                let offset = run.start.saturating_mul(self.page());
                let end = run.end.saturating_mul(self.page());
                let end = end.min(block.known.used_length);
                self.host.discard(id, offset, end.saturating_sub(offset))?;
            }
        }
        self.host.serve()?;
        *stage = Stage::Listening;
        Ok(())
    }

    /// `POSTCOPY_RUN`: the guest may start.
    pub(crate) fn run(&self) -> Result<(), PostcopyError> {
        let mut stage = lock(&self.stage);
        expect("POSTCOPY_RUN", *stage, Stage::Listening)?;
        *stage = Stage::Running;
        Ok(())
    }

    /// Whether the source may switch to postcopy.
    #[must_use]
    pub fn is_advised(&self) -> bool {
        *lock(&self.stage) >= Stage::Advised
    }

    /// Whether pages are missing in a way that whoever touches them waits.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        *lock(&self.stage) >= Stage::Listening
    }

    /// A thread waits for a page. Every page is asked for once, however many wait for it, until it has arrived.
    #[must_use]
    pub fn fault(&self, id: BlockId, offset: u64) -> FaultAnswer {
        let Some(block) = self.block(id).filter(|b| offset < b.known.used_length) else {
            return FaultAnswer::Outside;
        };
        let size = block.known.page_size.max(self.page());
        let request = PageRequest {
            block: id,
            offset: offset.saturating_sub(offset.checked_rem(size).unwrap_or(0)),
            length: u32::try_from(size).unwrap_or(u32::MAX),
        };
        let page = self.pages(request.offset, 1).start;
        let first = block.asked.insert(page);
        // Whoever places the page marks it first and looks for a request then.
        if block.received.contains(page) {
            block.asked.remove(page);
            FaultAnswer::Arrived
        } else if first {
            FaultAnswer::Ask(request)
        } else {
            FaultAnswer::Asked
        }
    }

    /// What has been asked for and has not arrived: to be asked for again on a new connection.
    #[must_use]
    pub fn outstanding(&self) -> Vec<PageRequest> {
        let of_block = |(id, block): (BlockId, &Block)| {
            let length = u32::try_from(block.known.page_size).unwrap_or(u32::MAX);
            let asked = block.asked.bitmap();
            let pages: Vec<_> = asked.runs().flatten().collect();
            pages.into_iter().map(move |page| (id, page, length))
        };
        let request = |(block, page, length): (_, u64, _)| PageRequest {
            block,
            offset: page.saturating_mul(self.page()),
            length,
        };
        self.numbered().flat_map(of_block).map(request).collect()
    }

    /// The name of a block.
    #[must_use]
    pub fn name(&self, id: BlockId) -> Option<&BlockName> {
        self.block(id).map(|block| &block.known.idstr)
    }

    /// What has not arrived, block by block; blocks that are complete are left out.
    #[must_use]
    pub fn missing(&self) -> Vec<MissingBlock> {
        let of_block = |block: &Block| {
            let missing = block.received.missing();
            Some(MissingBlock {
                first: missing.next_set(0)?.saturating_mul(self.page()),
                block: block.known.idstr.clone(),
                pages: missing.count(),
            })
        };
        self.blocks.iter().filter_map(of_block).collect()
    }

    /// What has arrived since `POSTCOPY_LISTEN`.
    #[must_use]
    pub fn counts(&self) -> PostcopyPages {
        PostcopyPages {
            requested: self.requested.load(Ordering::Relaxed),
            background: self.background.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
        }
    }

    /// The reader of the preempt channel; none before the source has listed its blocks.
    #[must_use]
    pub fn preempt_channel(self: &Arc<Self>) -> Option<PreemptChannel> {
        let parts = lock(&self.preempt).clone()?;
        Some(PreemptChannel::new(Arc::clone(self), parts))
    }

    /// `RECV_BITMAP`: which target pages of a block have arrived.
    pub(crate) fn received(&self, name: &WireName) -> Result<DirtyBitmap, PostcopyError> {
        let (_, block) = self.find(name)?;
        Ok(block.received.bitmap())
    }

    /// Whether all is here, now that the source says that there is no more ([`LoadStep::Eof`](crate::LoadStep::Eof)):
    /// whatever it has said to drop, or was asked for. With the preempt channel, that may still be on its way.
    ///
    /// # Errors
    ///
    /// [`PostcopyError::Unfinished`].
    pub fn complete(&self) -> Result<(), PostcopyError> {
        for block in &self.blocks {
            let mut wanted = lock(&block.owed).clone();
            wanted.union_with(&block.asked.bitmap());
            let mut left = wanted
                .runs()
                .flatten()
                .filter(|p| !block.received.contains(*p));
            if let Some(first) = left.next() {
                return Err(PostcopyError::Unfinished {
                    block: block.known.idstr.clone(),
                    pages: (left.count() as u64).saturating_add(1),
                    first: first.saturating_mul(self.page()),
                });
            }
        }
        Ok(())
    }

    /// The connection has broken.
    pub(crate) fn broken(&self) {
        self.breaks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Relaxed)
    }

    /// A target page has arrived while the guest runs at the source.
    pub(crate) fn precopied(&self, id: BlockId, offset: u64) {
        if let Some(block) = self.block(id) {
            block.received.insert(self.pages(offset, 1).start);
        }
    }

    pub(crate) fn set_preempt(&self, form: PageForm, blocks: &[BlockId]) {
        *lock(&self.preempt) = Some((form, blocks.into()));
    }

    /// Page sizes that a source with postcopy writes into its list of blocks, and we have to expect.
    pub(crate) fn unusual_page_sizes(&self) -> Vec<(BlockName, u64)> {
        let usual = self.page().max(4096);
        let unusual = self.blocks.iter().filter(|b| b.known.page_size != usual);
        unusual
            .map(|b| (b.known.idstr.clone(), b.known.page_size))
            .collect()
    }

    fn page(&self) -> u64 {
        self.memory.page_size().bytes()
    }

    /// Numbers of the target pages of a range.
    fn pages(&self, offset: u64, length: u64) -> std::ops::Range<u64> {
        let end = offset.saturating_add(length).div_ceil(self.page());
        offset.checked_div(self.page()).unwrap_or(0)..end
    }

    fn block(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(usize::try_from(id.0).ok()?)
    }

    fn numbered(&self) -> impl Iterator<Item = (BlockId, &Block)> {
        (0..).map(BlockId).zip(&self.blocks)
    }

    fn find(&self, name: &WireName) -> Result<(BlockId, &Block), PostcopyError> {
        self.numbered()
            .find(|(_, block)| block.known.idstr.as_bytes() == name.as_bytes())
            .ok_or_else(|| PostcopyError::UnknownBlock(name.clone()))
    }
}

fn expect(command: &'static str, stage: Stage, wanted: Stage) -> Result<(), PostcopyError> {
    if stage == wanted {
        return Ok(());
    }
    Err(PostcopyError::Order {
        command,
        when: stage.to_string(),
    })
}
