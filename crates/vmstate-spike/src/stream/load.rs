//! Reads a stream.

use vmstate::wire::stream::{Event, ParserOptions, SectionHeader, SectionKind, Step, StreamParser};
use vmstate::{Limits, decode};
use vmstate_engine::RunState;
use vmstate_ram::{BlockId, Dialect, RamParser, RamSection, Record};

use super::StreamError;
use crate::board::MACHINE;
use crate::memory::Block;
use crate::state::GlobalState;
use crate::{Machine, Section};

/// Loads a whole stream into a machine that stands still, and says what the source was doing: start the machine if that
/// is live.
///
/// # Errors
/// [`StreamError`]. The machine is then half loaded and must not run.
pub fn load(machine: &Machine, stream: &[u8]) -> Result<RunState, StreamError> {
    let mut loader = Loader {
        machine,
        ram: RamParser::new(Dialect::modern()),
        missing: machine.sections(),
        state: None,
    };
    let mut parser = StreamParser::new(ParserOptions::default());
    let mut rest = stream;
    loop {
        match parser.next(rest)? {
            Step::NeedMore { .. } => {
                parser.finish(rest)?;
                break;
            }
            Step::End => break,
            Step::InBody => {
                let header = parser.current_section().cloned();
                let header = header.ok_or(StreamError::Foreign("a body without a section"))?;
                let at = parser.offset().0;
                let used = loader.body(&header, at, rest)?;
                parser.body_done(used as u64)?;
                rest = rest.get(used..).unwrap_or_default();
            }
            Step::Event { consumed, event } => {
                match event {
                    Event::Configuration(configuration) => {
                        let name = configuration.machine.to_string();
                        if name != MACHINE {
                            return Err(StreamError::Machine(name));
                        }
                    }
                    Event::PackageBegin { .. } => return Err(StreamError::Foreign("postcopy")),
                    _ => {}
                }
                rest = rest.get(consumed..).unwrap_or_default();
            }
        }
    }
    loader.finish()
}

struct Loader<'a> {
    machine: &'a Machine,
    ram: RamParser,
    missing: Vec<Section>,
    state: Option<RunState>,
}

impl Loader<'_> {
    /// Loads the body that `bytes` begin with, which stands at `at` in the stream, and says how long it is.
    fn body(
        &mut self,
        header: &SectionHeader,
        at: u64,
        bytes: &[u8],
    ) -> Result<usize, StreamError> {
        let name = header.idstr.to_string();
        if name == "ram" {
            return self.ram(header.kind, at, bytes);
        }
        let version = header.version_id.0;
        let instance_id = header.instance_id.0;
        let place = |error: vmstate::Error| error.offset_by(at).in_section(&name);
        if name == "globalstate" && instance_id == 0 {
            let mut global = GlobalState::default();
            let used = decode(&mut global, version, bytes, Limits::default()).map_err(place)?;
            let state = global.name().unwrap_or_default();
            let known = RunState::from_name(state);
            self.state = Some(known.ok_or_else(|| StreamError::RunState(state.to_owned()))?);
            return Ok(used);
        }
        let found = self.missing.iter().position(|section| {
            section.description().name() == name && section.instance_id() == instance_id
        });
        let Some(found) = found else {
            return Err(StreamError::Section {
                name,
                instance_id,
                version,
            });
        };
        let section = self.missing.remove(found);
        let mut used = 0;
        let loaded = section.load(&mut |state| {
            used = decode(state, version, bytes, Limits::default())?;
            Ok(())
        });
        loaded.map_err(place)?;
        Ok(used)
    }

    fn ram(&mut self, kind: SectionKind, at: u64, bytes: &[u8]) -> Result<usize, StreamError> {
        use vmstate_ram::{Event, Step};

        let kind = match kind {
            SectionKind::Start => RamSection::Start,
            SectionKind::Part => RamSection::Part,
            SectionKind::End => RamSection::End,
            SectionKind::Full => return Err(StreamError::Foreign("RAM in one piece")),
        };
        self.ram.begin_section(kind, at)?;
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            match self.ram.step(rest)? {
                Step::NeedMore { at_least } => {
                    return Err(self.ram.truncated(at_least, rest.len()).into());
                }
                Step::Event { consumed, event } => {
                    used += consumed;
                    match event {
                        Event::EndOfSection => return Ok(used),
                        Event::Block { block, .. } => self.compare(block)?,
                        Event::Record(record) => self.record(&record)?,
                        Event::MultifdFlush => return Err(StreamError::Foreign("multifd")),
                        Event::BlockListStart { .. }
                        | Event::BlockListEnd
                        | Event::PageHeader(_) => {}
                    }
                }
            }
        }
    }

    /// The machine's block for one of the stream's.
    fn block(&self, id: BlockId) -> Result<&Block, StreamError> {
        let named = self.ram.blocks().get(id);
        let (name, found) = named.map_or_else(Default::default, |block| {
            let name = String::from_utf8_lossy(block.name.as_bytes()).into_owned();
            (name, block.used_length)
        });
        let block = self.machine.memory().block(&name);
        let expected = block.map_or(0, |block| block.ram.len());
        block
            .filter(|_| expected == found)
            .ok_or(StreamError::Block {
                name,
                found,
                expected,
            })
    }

    fn compare(&self, id: BlockId) -> Result<(), StreamError> {
        self.block(id).map(|_| ())
    }

    fn record(&self, record: &Record<'_>) -> Result<(), StreamError> {
        let page = record.page();
        let block = self.block(page.block)?;
        // The parser has checked that the page is in its block, which is as long as the machine's.
        match *record {
            Record::Page { data, .. } => _ = block.ram.write(page.offset, data),
            Record::Zero { fill, .. } => {
                if fill != 0 || block.ram.is_zero(page.offset, 4096) != Ok(true) {
                    _ = block.ram.fill(page.offset, 4096, fill);
                }
            }
            Record::Xbzrle { .. } => return Err(StreamError::Foreign("a delta")),
            Record::Compressed { .. } => return Err(StreamError::Foreign("a compressed page")),
        }
        Ok(())
    }

    fn finish(self) -> Result<RunState, StreamError> {
        if let Some(section) = self.missing.first() {
            let name = format!("{}/{}", section.description().name(), section.instance_id());
            return Err(StreamError::Missing(name));
        }
        if self.ram.blocks().len() != self.machine.memory().blocks().len() {
            return Err(StreamError::Missing("ram".to_owned()));
        }
        self.state
            .ok_or_else(|| StreamError::Missing("globalstate".to_owned()))
    }
}
