//! The bodies of sections: whose they are decides how their end is found.

use vmstate_ram::RamSection;
use vmstate_ram::dirty_bitmap::{Body as ChunkBody, Chunk, ChunkEvent, ChunkWriter, StartFlags};
use vmstate_wire::stream::{
    BodyEnd, BodyEndScanner, Configuration, InferContext, Presence, SectionHeader, SectionKind,
};
use vmstate_wire::vmdesc::Trailer;

use super::channels::Channels;
use super::device::{self, Surroundings};
use super::ram::{RamReader, ram_error};
use super::report::{BitmapChunk, BitmapChunkBody, Content, InspectError};
use super::walk::Walk;

impl Walk<'_, '_, '_, '_, '_> {
    pub(super) fn body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        if header.idstr.as_bytes() == b"ram" && header.instance_id.0 == 0 {
            return self.ram_body(header);
        }
        if header.idstr.as_bytes() == b"dirty-bitmap" && header.instance_id.0 == 0 {
            return self.dirty_bitmap_body(header);
        }
        if header.idstr.as_bytes() == b"spapr/htab" && header.instance_id.0 == 0 {
            return self.hash_table_body(header);
        }
        let device = self.trailer.and_then(|t| {
            let idstr = header.idstr.as_str()?;
            let instance_id = header.instance_id.0;
            // The section itself is in the report already.
            let identity = (header.idstr.clone(), header.instance_id);
            let came = self.namesakes.get(&identity).copied().unwrap_or(1);
            t.device_after(idstr, instance_id, came.saturating_sub(1))
        });
        if let (Some(device), Some(trailer)) = (device, self.trailer) {
            return self.described_body(header, device, trailer);
        }
        self.inferred_body(header, None)
    }

    fn ram_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let name = header.name().to_string();
        if self.ram.is_none() {
            let page_size = self.settle_page_size();
            let configuration = self.report.configuration.as_ref();
            self.ram = Some(RamReader::new(
                configuration,
                page_size,
                self.input,
                self.options,
            )?);
        }
        let Some(ram) = &mut self.ram else {
            return Ok(Body::default());
        };
        if let Some(inputs) = self.inputs.take() {
            self.channels = Some(Channels::open(inputs, ram.page_size())?);
        }
        let Some(channels) = &mut self.channels else {
            return Ok(Body::default());
        };
        let kind = match header.kind {
            SectionKind::Start | SectionKind::Full => RamSection::Start,
            SectionKind::Part => RamSection::Part,
            SectionKind::End => RamSection::End,
        };
        if self.sink.is_some() && header.kind == SectionKind::Start {
            ram.follow();
        }
        let body = ram.body(
            kind,
            &name,
            self.input,
            channels,
            &mut self.report.problems,
            self.sink.as_deref_mut(),
        )?;
        Ok(Body {
            length: body.length,
            unreported: body.length,
            inferred: false,
            content: Content::Ram,
        })
    }

    /// The target page size: what the caller says, else the trailer, else the configuration.
    fn settle_page_size(&mut self) -> u64 {
        let configured = self
            .report
            .configuration
            .as_ref()
            .and_then(Configuration::target_page_bits)
            .and_then(|bits| 1_u64.checked_shl(bits));
        let size = self
            .options
            .page_size
            .or_else(|| self.trailer.and_then(Trailer::page_size))
            .or(configured)
            .unwrap_or(4096);
        self.report.page_size = size;
        size
    }

    fn dirty_bitmap_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let start = self.input.position();
        let name = header.name().to_string();
        let error = ram_error(&name);
        self.dirty_bitmaps.begin_section(start);
        let mut chunks = Vec::new();
        let mut want = 1;
        loop {
            let bytes = self.input.peek(want)?;
            let have = bytes.len();
            match self.dirty_bitmaps.step(bytes).map_err(&error)? {
                vmstate_ram::Step::NeedMore { at_least } => {
                    if have < want || have >= at_least {
                        return Err(InspectError::Truncated {
                            inside: format!("a chunk of section {name}"),
                            offset: start + have as u64,
                        });
                    }
                    want = at_least;
                }
                vmstate_ram::Step::Event { consumed, event } => {
                    want = 1;
                    let ended = matches!(event, ChunkEvent::EndOfSection);
                    if let ChunkEvent::Chunk(chunk) = &event {
                        chunks.push(bitmap_chunk(chunk));
                        if let Some(sink) = &mut self.sink {
                            let mut bytes = Vec::new();
                            ChunkWriter::chunk(chunk, &mut bytes).map_err(&error)?;
                            sink.bytes(header, &bytes)?;
                        }
                    }
                    if let (true, Some(sink)) = (ended, &mut self.sink) {
                        let mut bytes = Vec::new();
                        ChunkWriter::new().end_of_section(&mut bytes);
                        sink.bytes(header, &bytes)?;
                    }
                    self.input.consume(consumed as u64)?;
                    if ended {
                        break;
                    }
                }
            }
        }
        let length = self.input.position() - start;
        self.spend(length, || up_to(header), start)?;
        Ok(Body {
            length,
            unreported: length,
            inferred: false,
            content: Content::DirtyBitmaps(chunks),
        })
    }

    /// The hash page table of a `pseries` machine. Its end shows in the content: machines up to 2.3 write no footers, and
    /// what it holds looks like anything.
    ///
    /// | size | order | meaning |
    /// |---|---|---|
    /// | 4 | be | in START: log2 of the table's size; -1 without a table; 0 in PART and END, entries follow |
    /// | 4 | be | index of the first entry |
    /// | 2 | be | n, valid entries |
    /// | 2 | be | invalid entries behind them |
    /// | 16 n | | valid entries; then the next index; all three 0 at the end |
    ///
    /// Wire: QEMU 7.2 to 11.1, section `spapr/htab`.
    fn hash_table_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let offset = self.input.position();
        let wanted = self.options.keep.wants(&header.idstr.to_string());
        let mut content = (wanted || self.sink.is_some()).then(Vec::new);
        let first = self.take(4, header, &mut content)?;
        if first == [0; 4] {
            loop {
                let entry = self.take(8, header, &mut content)?;
                let valid = match entry.first_chunk::<6>() {
                    Some([_, _, _, _, high, low]) => u16::from_be_bytes([*high, *low]),
                    None => 0,
                };
                if entry == [0; 8] {
                    break;
                }
                self.take(16 * usize::from(valid), header, &mut content)?;
            }
        }
        if let (Some(sink), Some(content)) = (&mut self.sink, &content) {
            sink.opaque(header, content, None)?;
        }
        let length = self.input.position() - offset;
        Ok(Body {
            length,
            unreported: length,
            inferred: false,
            content: content
                .filter(|_| wanted)
                .map_or(Content::Left, Content::Opaque),
        })
    }

    /// Moves over bytes that must be there, and keeps them where they are wanted.
    fn take(
        &mut self,
        count: usize,
        header: &SectionHeader,
        content: &mut Option<Vec<u8>>,
    ) -> Result<Vec<u8>, InspectError> {
        let offset = self.input.position();
        if content.is_some() {
            self.spend(count as u64, || up_to(header), offset)?;
        }
        let bytes = self.input.peek(count)?;
        let Some(bytes) = bytes.get(..count).map(<[u8]>::to_vec) else {
            return Err(InspectError::Truncated {
                inside: format!("an entry of section {}", header.name()),
                offset: offset + bytes.len() as u64,
            });
        };
        if let Some(content) = content {
            content.extend_from_slice(&bytes);
        }
        self.input.consume(count as u64)?;
        Ok(bytes)
    }

    fn described_body(
        &mut self,
        header: &SectionHeader,
        device: &vmstate_wire::vmdesc::Device<'_>,
        trailer: &Trailer<'_>,
    ) -> Result<Body, InspectError> {
        let offset = self.input.position();
        let around = Surroundings {
            section_id: header.section_id,
            footers: self.parser.footers(),
            sections: self.parser.sections(),
            trailer,
            room: self.parser.package_remaining(),
        };
        let decoded =
            match device::decode(self.input, device, &around, self.options.share(self.memory)) {
                Ok(decoded) => decoded,
                Err(InspectError::Device(error))
                    if device.may_leave_holes_open() && !is_memory(&error) =>
                {
                    return self.misdescribed_body(header, device, &error);
                }
                Err(error) => return Err(error),
            };
        let used = decoded.used;
        if self.options.verify {
            let payload = self.input.peek(used)?;
            device::verify(
                header,
                payload.get(..used).unwrap_or_default(),
                offset,
                &decoded.state,
                device,
                trailer,
                &mut self.report.problems,
            );
        }
        if let Some(sink) = &mut self.sink {
            let payload = self.input.peek(used)?;
            let payload = payload.get(..used).unwrap_or_default();
            sink.device(header, &decoded.state, payload, Some(device))?;
        }
        self.input.consume(used as u64)?;
        let content = if self.options.keep.wants(&header.idstr.to_string()) {
            let memory = decoded.state.memory() as u64;
            self.spend(memory, || up_to(header), offset)?;
            Content::Described(Box::new(decoded.state))
        } else {
            Content::Left
        };
        Ok(Body {
            length: used as u64,
            unreported: used as u64,
            inferred: false,
            content,
        })
    }

    /// A body that its description does not fit, in a way that is known of QEMU's descriptions.
    fn misdescribed_body(
        &mut self,
        header: &SectionHeader,
        device: &vmstate_wire::vmdesc::Device<'_>,
        error: &vmstate_desc::Error,
    ) -> Result<Body, InspectError> {
        let body = self.inferred_body(header, Some(device))?;
        self.report.warnings.push(format!(
            "section {}: kept as bytes, since QEMU's trailer does not say which pointers of an array are absent ({error})",
            header.name()
        ));
        Ok(body)
    }

    /// A body whose end is found by its footer. Its bytes are kept: a trailer may still come.
    fn inferred_body(
        &mut self,
        header: &SectionHeader,
        entry: Option<&vmstate_wire::vmdesc::Device<'_>>,
    ) -> Result<Body, InspectError> {
        let offset = self.input.position();
        let room = self.parser.package_remaining();
        let mut scanner = BodyEndScanner::new();
        let mut want = 64 << 10;
        let length = loop {
            let bytes = self.input.peek(want)?;
            let at_end = bytes.len() < want;
            let (bytes, at_end) = match room {
                Some(room) if room <= bytes.len() as u64 => (
                    bytes
                        .get(..usize::try_from(room).unwrap_or(0))
                        .unwrap_or(bytes),
                    true,
                ),
                _ => (bytes, at_end),
            };
            let context = InferContext {
                section_id: header.section_id,
                sections: self.parser.sections(),
                footers: self.parser.footers() != Presence::Absent,
                package: room.is_some(),
            };
            match scanner.scan(bytes, &context, at_end) {
                BodyEnd::Inferred(end) => break end.length,
                BodyEnd::NeedMore { min } if !at_end => {
                    want = min.max(want.saturating_mul(2));
                    if want as u64 > self.options.memory {
                        return Err(InspectError::Limit {
                            what: format!("section {} without a description", header.name()),
                            limit: self.options.memory,
                            offset,
                        });
                    }
                }
                _ => {
                    return Err(InspectError::Truncated {
                        inside: format!(
                            "section {}: neither its footer nor a description tells where it ends",
                            header.name()
                        ),
                        offset: offset + bytes.len() as u64,
                    });
                }
            }
        };
        self.spend(length as u64, || up_to(header), offset)?;
        let bytes = self.input.peek(length)?;
        let bytes = bytes.get(..length).unwrap_or_default().to_vec();
        if let Some(sink) = &mut self.sink {
            sink.opaque(header, &bytes, entry)?;
        }
        self.input.consume(length as u64)?;
        Ok(Body {
            length: length as u64,
            unreported: length as u64,
            inferred: true,
            content: Content::Opaque(bytes),
        })
    }

    pub(super) fn spend(
        &mut self,
        bytes: u64,
        what: impl FnOnce() -> String,
        offset: u64,
    ) -> Result<(), InspectError> {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(InspectError::Limit {
                what: what(),
                limit: self.options.memory,
                offset,
            }),
        }
    }
}

/// Whether it is this end's limit that was reached: then the trailer is not at fault.
pub(super) fn is_memory(error: &vmstate_desc::Error) -> bool {
    matches!(error.kind(), vmstate_desc::ErrorKind::Memory { .. })
}

fn up_to(header: &SectionHeader) -> String {
    format!("device state up to section {}", header.name())
}

/// The payload of one piece of a section.
pub(super) struct Body {
    pub(super) length: u64,
    /// Bytes that the stream's parser does not know of yet.
    pub(super) unreported: u64,
    pub(super) inferred: bool,
    pub(super) content: Content,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            length: 0,
            unreported: 0,
            inferred: false,
            content: Content::Left,
        }
    }
}

impl Content {
    /// Adds what a further piece of the section brought.
    pub(super) fn append(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Left, more) => *self = more,
            (Self::Opaque(bytes), Self::Opaque(more)) => bytes.extend(more),
            (Self::DirtyBitmaps(chunks), Self::DirtyBitmaps(more)) => chunks.extend(more),
            _ => {}
        }
    }
}

pub(super) fn bitmap_chunk(chunk: &Chunk<'_>) -> BitmapChunk {
    BitmapChunk {
        node: String::from_utf8_lossy(chunk.node).into_owned(),
        bitmap: String::from_utf8_lossy(chunk.bitmap).into_owned(),
        body: match chunk.body {
            ChunkBody::Start { granularity, flags } => BitmapChunkBody::Start {
                granularity,
                enabled: flags.contains(StartFlags::ENABLED),
                persistent: flags.contains(StartFlags::PERSISTENT),
            },
            ChunkBody::Bits {
                first_sector,
                sectors,
                data,
            } => BitmapChunkBody::Bits {
                first_sector,
                sectors,
                data: data.map(<[u8]>::to_vec),
            },
            ChunkBody::Complete => BitmapChunkBody::Complete,
        },
    }
}
