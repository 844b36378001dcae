//! Further channels of a migration: multifd, and postcopy's preempt channel.

use vmstate_ram::multifd::{ChannelEvent, ChannelParser, ChannelSettings, Decompressor, Method};
use vmstate_ram::{Event, PageSize, Record, Step};

use super::Problem;
use super::placed::FileNumber;
use super::ram::{RamReader, count};
use super::report::{Channel, InspectError};
use crate::input::Input;

/// First word of a multifd channel and of each of its packets.
const MULTIFD_MAGIC: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
/// Bytes of a packet's header up to the number of its zero pages.
const PEEKED_HEADER: usize = 36;

/// The channels that were given beside the main one.
pub(super) struct Channels<'c, 'i> {
    channels: Vec<State<'c, 'i>>,
}

struct State<'c, 'i> {
    number: usize,
    input: &'c mut Box<dyn Input + 'i>,
    kind: Kind,
    report: Channel,
    /// The channel's file in the store of RAM's content.
    file: Option<FileNumber>,
}

enum Kind {
    Multifd(Box<Multifd>),
    Preempt,
}

struct Multifd {
    parser: ChannelParser,
    settings: ChannelSettings,
    decompressor: Option<Decompressor>,
    pages: Vec<u8>,
    /// The method is known: packets with pages have come.
    settled: bool,
    want: usize,
}

/// Where a channel stopped.
#[derive(PartialEq, Eq)]
enum Halted {
    Sync,
    End,
}

impl<'c, 'i> Channels<'c, 'i> {
    /// Tells the channels apart by their first bytes.
    pub(super) fn open(
        inputs: &'c mut [Box<dyn Input + 'i>],
        page_size: PageSize,
    ) -> Result<Self, InspectError> {
        let mut channels = Vec::new();
        for (index, input) in inputs.iter_mut().enumerate() {
            let number = index + 1;
            let multifd = input.peek(4)?.starts_with(&MULTIFD_MAGIC);
            let is_main = input.peek(4)?.starts_with(b"QEVM");
            if is_main {
                return Err(InspectError::Channel {
                    number,
                    what: "is a main stream: give it first".to_owned(),
                });
            }
            let settings = ChannelSettings {
                page_size,
                ..ChannelSettings::default()
            };
            let kind = if multifd {
                Kind::Multifd(Box::new(Multifd {
                    parser: ChannelParser::new(settings),
                    settings,
                    decompressor: None,
                    pages: Vec::new(),
                    settled: false,
                    want: PEEKED_HEADER,
                }))
            } else {
                Kind::Preempt
            };
            channels.push(State {
                number,
                input,
                report: Channel {
                    kind: if multifd { "multifd" } else { "preempt" },
                    id: None,
                    packets: 0,
                    syncs: 0,
                    compression: None,
                    length: 0,
                },
                kind,
                file: None,
            });
        }
        Ok(Self { channels })
    }

    /// Whether a multifd channel was given.
    pub(super) fn has_multifd(&self) -> bool {
        self.channels
            .iter()
            .any(|channel| matches!(channel.kind, Kind::Multifd(_)))
    }

    /// A mark on the main channel: everything up to each channel's synchronisation packet comes before it.
    pub(super) fn synchronise(
        &mut self,
        ram: &mut RamReader,
        problems: &mut Vec<Problem>,
    ) -> Result<(), InspectError> {
        for channel in &mut self.channels {
            if let Kind::Multifd(_) = channel.kind
                && channel.run(ram)? == Halted::End
            {
                problems.push(Problem {
                    offset: None,
                    text: format!(
                        "channel file {}: ends before the synchronisation that the main channel marks",
                        channel.number
                    ),
                });
            }
        }
        Ok(())
    }

    /// Reads what is left of every channel.
    pub(super) fn finish(
        mut self,
        ram: &mut RamReader,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<Channel>, InspectError> {
        for channel in &mut self.channels {
            match channel.kind {
                Kind::Multifd(_) => {
                    let mut surplus = 0_u64;
                    while channel.run(ram)? == Halted::Sync {
                        surplus += 1;
                    }
                    if surplus > 0 {
                        problems.push(Problem {
                            offset: None,
                            text: format!(
                                "channel file {}: {surplus} synchronisation packets more than marks on the main channel",
                                channel.number
                            ),
                        });
                    }
                }
                Kind::Preempt => channel.preempt(ram)?,
            }
            channel.report.length = channel.input.position();
        }
        Ok(self.channels.into_iter().map(|c| c.report).collect())
    }
}

impl State<'_, '_> {
    fn name(&self) -> String {
        format!("{} channel, file {}", self.report.kind, self.number)
    }

    /// Reads packets up to the next synchronisation point.
    fn run(&mut self, ram: &mut RamReader) -> Result<Halted, InspectError> {
        let name = self.name();
        let error = |error| InspectError::Ram {
            section: name.clone(),
            error,
        };
        let Kind::Multifd(multifd) = &mut self.kind else {
            return Ok(Halted::End);
        };
        if let (None, Some(image), Some(file)) = (self.file, &mut ram.image, self.input.file()) {
            self.file = image.store_mut().add_file(file);
        }
        loop {
            let position = self.input.position();
            let bytes = self.input.peek(multifd.want)?;
            let have = bytes.len();
            if have == 0 && multifd.parser.is_between_packets() {
                return Ok(Halted::End);
            }
            multifd.settle(bytes).map_err(error)?;
            match multifd.parser.step(bytes).map_err(error)? {
                Step::NeedMore { at_least } => {
                    if have < multifd.want.min(at_least) || (have < at_least && have < multifd.want)
                    {
                        return Err(InspectError::Truncated {
                            inside: format!("a packet of {name}"),
                            offset: self.input.position() + have as u64,
                        });
                    }
                    multifd.want = at_least;
                }
                Step::Event { consumed, event } => {
                    multifd.want = PEEKED_HEADER;
                    let mut sync = false;
                    match event {
                        ChannelEvent::Init(init) => self.report.id = Some(init.channel),
                        ChannelEvent::Pages(pages) => {
                            self.report.packets += 1;
                            self.report.compression = Some(pages.method);
                            sync = pages.sync;
                            let block =
                                pages.locate(ram.blocks(), ram.page_size()).map_err(error)?;
                            let counters = count(&mut ram.pages, block);
                            counters.multifd += pages.normal.len() as u64;
                            counters.multifd_zero += pages.zero.len() as u64;
                            let size = ram.page_size().as_usize();
                            if let (Some(image), Some(file), Method::None) =
                                (&mut ram.image, self.file, pages.method)
                            {
                                // The pages stand at the end of the packet as they are.
                                let end = position + consumed as u64;
                                let places = (end - pages.payload.len() as u64..).step_by(size);
                                for (offset, place) in pages.normal.iter().zip(places) {
                                    image
                                        .store_mut()
                                        .place(block, offset, file, place)
                                        .map_err(error)?;
                                }
                                for offset in pages.zero.iter() {
                                    image.fill(block, offset, 0).map_err(error)?;
                                }
                            } else if ram.wants_content() {
                                multifd.pages.resize(pages.normal.len() * size, 0);
                                if let Some(decompressor) = &mut multifd.decompressor
                                    && !pages.normal.is_empty()
                                {
                                    decompressor
                                        .decompress(pages.payload, &mut multifd.pages)
                                        .map_err(error)?;
                                }
                                if let Some(image) = &mut ram.image {
                                    let contents = multifd.pages.chunks_exact(size);
                                    for (offset, content) in pages.normal.iter().zip(contents) {
                                        image.page(block, offset, content).map_err(error)?;
                                    }
                                    for offset in pages.zero.iter() {
                                        image.fill(block, offset, 0).map_err(error)?;
                                    }
                                }
                            }
                        }
                        ChannelEvent::Sync { .. } => sync = true,
                        ChannelEvent::Empty { .. } | ChannelEvent::DeviceState(_) => {}
                    }
                    self.input.consume(consumed as u64)?;
                    if sync {
                        self.report.syncs += 1;
                        return Ok(Halted::Sync);
                    }
                }
            }
        }
    }

    /// Reads the page records of a preempt channel.
    fn preempt(&mut self, ram: &mut RamReader) -> Result<(), InspectError> {
        let name = self.name();
        let error = |error| InspectError::Ram {
            section: name.clone(),
            error,
        };
        let mut parser = ram.preempt_parser().map_err(error)?;
        let mut want = 8;
        loop {
            let bytes = self.input.peek(want)?;
            let have = bytes.len();
            if have == 0 {
                return Ok(());
            }
            match parser.step(bytes).map_err(error)? {
                Step::NeedMore { at_least } => {
                    if have < want {
                        return Err(InspectError::Truncated {
                            inside: format!("a record of {name}"),
                            offset: self.input.position() + have as u64,
                        });
                    }
                    want = at_least;
                }
                Step::Event { consumed, event } => {
                    want = 8;
                    let ended = event == Event::EndOfSection;
                    if let Event::Record(record) = event {
                        count(&mut ram.pages, record.page().block).preempt += 1;
                        if let (Some(image), Record::Page { .. } | Record::Zero { .. }) =
                            (&mut ram.image, &record)
                        {
                            image.apply(&record).map_err(error)?;
                        }
                    }
                    self.input.consume(consumed as u64)?;
                    if ended {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl Multifd {
    /// Takes the compression of the first packet with pages for that of the channel.
    fn settle(&mut self, bytes: &[u8]) -> Result<(), vmstate_ram::RamError> {
        if self.settled || !self.parser.is_between_packets() || self.parser.position() == 0 {
            return Ok(());
        }
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .and_then(|w| w.first_chunk())
                .map_or(0, |w| u32::from_be_bytes(*w))
        };
        if word(8) & 0x40 != 0 || (word(16) == 0 && word(32) == 0) {
            return Ok(());
        }
        let Some(method) = Method::from_bits(word(8)) else {
            return Ok(());
        };
        self.settled = true;
        self.decompressor = Some(Decompressor::new(method, self.settings.page_size)?);
        if method != self.settings.method {
            self.settings.method = method;
            self.parser = ChannelParser::after_init(self.settings);
        }
        Ok(())
    }
}
