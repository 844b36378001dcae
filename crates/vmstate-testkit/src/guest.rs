//! A machine that is small enough for a fuzzer: guest memory of a few pages, and two described devices.

mod postcopy;

pub use self::postcopy::{Departed, Host};

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use vmstate_ber::frame::{Hello, Role};
use vmstate_ber::stream::Writer;
use vmstate_desc::{
    Codec, Count, Description, DescriptionRef, DynState, Element, Field, Limits, ListKind, Repeat,
    Scalar, ScalarType, Scalars, Size, Value,
};
use vmstate_engine::{
    ANY_INSTANCE, Bql, ChannelEnd, ChannelError, ChannelWriter, Device, DirtyLog, DirtySink,
    GuestBlock, GuestMemory, Identity, Incoming, LoadError, LoadStep, MemoryError, Outgoing,
    PageRequests, RAM_VERSION, RamHandler, Registry, SaveError, SectionReader, SectionWriter,
    Settings,
};
use vmstate_io::live::{BerDecoder, BerEncoder};
use vmstate_ram::{BlockId, BlockName, PageSize};
use vmstate_wire::stream::StreamOffset;

const PAGES: [(&[u8], u64); 2] = [(b"mem", 5), (b"rom", 1)];
const PAGE: u64 = 4096;

/// In which format a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// QEMU's.
    Qemu,
    /// VM state over BER.
    Ber,
}

/// The number of every migration of this machine.
const SESSION: [u8; 16] = *b"a small machine.";

/// Memory for one device.
const LIMITS: Limits = Limits {
    memory: 1 << 20,
    depth: 64,
};

/// Guest memory of a few pages. Nothing is ever dirty.
#[derive(Debug)]
pub struct Pages {
    blocks: Vec<(GuestBlock, Vec<AtomicU8>)>,
}

impl Pages {
    /// All zero.
    ///
    /// # Panics
    /// Never: the names are right.
    #[must_use]
    pub fn new() -> Self {
        let block = |(name, pages): &(&[u8], u64)| {
            let name = BlockName::new(name).expect("a good name");
            let bytes = (0..pages * PAGE).map(|_| AtomicU8::new(0)).collect();
            (GuestBlock::new(name, pages * PAGE), bytes)
        };
        Self {
            blocks: PAGES.iter().map(block).collect(),
        }
    }

    /// Every byte, block by block.
    #[must_use]
    pub fn content(&self) -> Vec<Vec<u8>> {
        let bytes =
            |(_, bytes): &(_, Vec<AtomicU8>)| bytes.iter().map(|byte| byte.load(Relaxed)).collect();
        self.blocks.iter().map(bytes).collect()
    }

    fn range(&self, block: BlockId, offset: u64, length: u64) -> Result<&[AtomicU8], MemoryError> {
        let range = || {
            let (_, bytes) = self.blocks.get(usize::try_from(block.0).ok()?)?;
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            bytes.get(start..end)
        };
        range().ok_or(MemoryError::OutOfRange {
            block: block.0,
            offset,
            length,
        })
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestMemory for Pages {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        self.blocks.iter().map(|(block, _)| block.clone()).collect()
    }

    fn used_length(&self, block: BlockId) -> u64 {
        let index = usize::try_from(block.0).unwrap_or(usize::MAX);
        self.blocks
            .get(index)
            .map_or(0, |(block, _)| block.used_length)
    }

    fn is_zero(&self, block: BlockId, offset: u64, length: u64) -> bool {
        self.range(block, offset, length)
            .is_ok_and(|bytes| bytes.iter().all(|byte| byte.load(Relaxed) == 0))
    }

    fn copy_out(&self, block: BlockId, offset: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.range(block, offset, out.len() as u64)?;
        for (to, from) in out.iter_mut().zip(from) {
            *to = from.load(Relaxed);
        }
        Ok(())
    }

    fn copy_in(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        for (to, from) in self
            .range(block, offset, data.len() as u64)?
            .iter()
            .zip(data)
        {
            to.store(*from, Relaxed);
        }
        Ok(())
    }

    fn zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        for byte in self.range(block, offset, length)? {
            byte.store(0, Relaxed);
        }
        Ok(())
    }
}

struct NeverDirty;

impl DirtyLog for NeverDirty {
    fn start(&mut self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn sync(&mut self, _dirty: &mut DirtySink<'_>) -> Result<(), MemoryError> {
        Ok(())
    }

    fn stop(&mut self) {}
}

/// The machine.
pub struct Guest {
    /// Its memory.
    pub memory: Arc<Pages>,
    /// Its devices: `plain` and `rich`.
    pub devices: [Arc<Mutex<DynState>>; 2],
    registry: Registry,
    requests: PageRequests,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

impl Guest {
    /// With memory of zeros.
    ///
    /// # Panics
    /// Never: the names are right.
    #[must_use]
    pub fn new() -> Self {
        let memory = Arc::new(Pages::new());
        let ram = RamHandler::new(memory.clone(), Box::new(NeverDirty));
        let requests = ram.counters().requests().clone();
        let devices = [plain(), rich()].map(|device| Arc::new(Mutex::new(device)));
        let mut registry = Registry::new();
        registry
            .register_device(Device::new(devices[0].clone()))
            .expect("a good name");
        registry
            .register_savevm_live("ram", ANY_INSTANCE, RAM_VERSION, Box::new(ram))
            .expect("a good name");
        registry
            .register_device(Device::new(devices[1].clone()).at_path("bus"))
            .expect("a good name");
        Self {
            memory,
            devices,
            registry,
            requests,
        }
    }

    /// Writes this machine's stream.
    ///
    /// # Errors
    /// None that this machine gives rise to.
    pub fn save(&mut self, settings: &Settings) -> Result<Vec<u8>, SaveError> {
        let (stream, bytes) = self.outgoing(Form::Qemu, settings);
        self.save_into(stream, bytes)
    }

    /// Writes this machine's stream as VM state over BER, as a source does when the destination has agreed.
    ///
    /// # Errors
    /// None that this machine gives rise to.
    pub fn save_ber(&mut self, settings: &Settings) -> Result<Vec<u8>, SaveError> {
        let (stream, bytes) = self.outgoing(Form::Ber, settings);
        self.save_into(stream, bytes)
    }

    /// A stream of this machine, and what stands in front of it.
    fn outgoing(&self, form: Form, settings: &Settings) -> (Outgoing, Vec<u8>) {
        let (settings, identity) = (settings.clone(), Identity::new("guest"));
        let mut bytes = Vec::new();
        let stream = match form {
            Form::Qemu => Outgoing::new(settings, identity, true),
            Form::Ber => {
                let hello = Hello {
                    role: Role::Source,
                    session: SESSION,
                    ..Hello::of_file("guest", Vec::new())
                };
                let writer = Writer::without_digest(&hello, &mut bytes);
                let encoder = BerEncoder::new(writer, self.memory.clone(), &settings);
                Outgoing::in_format(settings, identity, true, Box::new(encoder))
            }
        };
        (stream, bytes)
    }

    fn save_into(&mut self, mut stream: Outgoing, bytes: Vec<u8>) -> Result<Vec<u8>, SaveError> {
        let bql = Bql::holding(());
        let mut out = Out {
            memory: self.memory.clone(),
            bytes,
        };
        stream.begin(&mut out)?;
        stream.setup(&bql, &mut self.registry, &mut out)?;
        stream.iterate(&mut self.registry, &mut out)?;
        stream.complete(&bql, &mut self.registry, &mut out)?;
        stream.commit(&mut out)?;
        stream.trailer(&mut out)?;
        self.registry.save_cleanup(&bql);
        Ok(out.bytes)
    }

    /// Loads a stream that comes in pieces of `piece` bytes.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn load(
        &mut self,
        settings: &Settings,
        bytes: &[u8],
        piece: usize,
    ) -> Result<(), LoadError> {
        let stream = Incoming::new(settings.clone(), Identity::new("guest"));
        let input = self.input(bytes, piece);
        self.load_from(stream, input)
    }

    /// As [`Guest::load`], VM state over BER.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn load_ber(
        &mut self,
        settings: &Settings,
        bytes: &[u8],
        piece: usize,
    ) -> Result<(), LoadError> {
        let mut stream = Incoming::new(settings.clone(), Identity::new("guest"));
        let mut input = self.input(bytes, piece);
        let (decoder, _) = self.decoder(&mut input)?;
        stream.change_format(Box::new(decoder));
        self.load_from(stream, input)
    }

    /// The decoder of what comes behind `Hello`, and the number of the migration.
    fn decoder(&self, input: &mut In<'_>) -> Result<(BerDecoder, [u8; 16]), LoadError> {
        let limits = vmstate_ber::Limits {
            state: 1 << 20,
            ..vmstate_ber::Limits::default()
        };
        let mut decoder = BerDecoder::new(self.memory.clone(), limits);
        let session = decoder.hello(input)?.session;
        Ok((decoder, session))
    }

    fn input<'a>(&self, bytes: &'a [u8], piece: usize) -> In<'a> {
        In {
            memory: self.memory.clone(),
            bytes,
            position: 0,
            shown: 0,
            piece,
            host: None,
        }
    }

    fn load_from(&mut self, stream: Incoming, mut input: In<'_>) -> Result<(), LoadError> {
        let bql = Bql::holding(());
        let mut stream = stream.with_limits(LIMITS);
        stream.begin(&mut input)?;
        stream.setup(&bql, &mut self.registry)?;
        loop {
            match stream.next(&mut input)? {
                LoadStep::OpenReturnPath | LoadStep::Send(_) => {}
                LoadStep::Section => stream.section(Some(&bql), &mut self.registry, &mut input)?,
                LoadStep::SwitchoverStart => {
                    stream.switchover_start(Some(&bql), &mut self.registry)?;
                }
                LoadStep::Eof => break,
                _ => return Err(LoadError::Order("postcopy")),
            }
        }
        stream.trailer(&mut input)
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

fn plain() -> DynState {
    let mut description = Description::new("plain", 2, 1);
    description.fields = vec![
        Field::value("word", Codec::Uint32),
        Field::value("late", Codec::Uint8).since(2),
        Field::value("block", Codec::Buffer(Size::Fixed(20))),
    ]
    .into();
    let mut state = DynState::new(description);
    state.set("word", Scalar::U32(0));
    state.set("late", Scalar::U8(0));
    state.set("block", bytes(20));
    state
}

fn bytes(count: usize) -> Value {
    let mut bytes = Scalars::new(ScalarType::U8);
    for _ in 0..count {
        bytes.push(Scalar::U8(0));
    }
    Value::Scalars(bytes)
}

fn rich() -> DynState {
    let named = |name, fields: Vec<Field>| {
        let mut description = Description::new(name, 1, 1);
        description.fields = fields.into();
        description
    };
    let item = named("item", vec![Field::value("value", Codec::Uint16)]);
    let part = named("rich/part", vec![Field::value("flag", Codec::Bool)]);
    let mut description = named(
        "rich",
        vec![
            Field::value("count", Codec::Uint8),
            Field::value("values", Codec::Uint64)
                .repeat(Repeat::Counted(Count::of_field("count", 9))),
            Field::new("list", Element::List(ListKind::QTailq, item.into())).since(1),
        ],
    );
    description.subsections = vec![DescriptionRef::from(part)].into();
    let mut state = DynState::new(description);
    state.set("count", Scalar::U8(0));
    state.set("values", Value::Scalars(Scalars::new(ScalarType::U64)));
    state.set("list", Value::List(Vec::new()));
    state
}

struct Out {
    memory: Arc<Pages>,
    bytes: Vec<u8>,
}

impl SectionWriter for Out {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        self.memory
            .copy_out(block, offset, &mut data)
            .map_err(|error| ChannelError::failed(self.position(), error))?;
        self.bytes(&data)
    }

    fn rate_exceeded(&self) -> bool {
        false
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.bytes.len() as u64)
    }
}

impl ChannelWriter for Out {
    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}

struct In<'a> {
    memory: Arc<Pages>,
    bytes: &'a [u8],
    position: usize,
    shown: usize,
    piece: usize,
    /// In postcopy.
    host: Option<Arc<Host>>,
}

impl SectionReader for In<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        assert!(
            at_least <= vmstate_engine::MAX_PEEK,
            "{at_least} bytes at once"
        );
        if self.shown < self.position + at_least || self.shown == self.position {
            self.shown = self.position + at_least.max(self.piece);
        }
        self.shown = self.shown.min(self.bytes.len());
        Ok(self
            .bytes
            .get(self.position..self.shown)
            .unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
        assert!(self.position <= self.shown, "consumed what was not shown");
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.position as u64)
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        let here = self.offset();
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read_exact(&mut data)?;
        if let Some(host) = &self.host {
            host.written(block, offset);
        }
        self.memory
            .copy_in(block, offset, &data)
            .map_err(|_| ChannelError::new(ChannelEnd::Failed, here))
    }
}
