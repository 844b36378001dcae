//! What the parser does at each place of a stream.

use super::super::command::{self, Command, CommandId};
use super::super::configuration;
use super::super::error::{Place, StreamErrorKind};
use super::super::event::{Event, Step, Warning};
use super::super::options::Presence;
use super::super::take::{Stop, Take, fail};
use super::super::types::{
    FILE_MAGIC, FILE_VERSION, IdStr, InstanceId, OBSOLETE_FILE_VERSION, SectionHeader, SectionId,
    SectionKind, VersionId, mark,
};
use super::{State, StreamParser, as_u64};

impl StreamParser {
    /// One step. Must not change anything when it does not succeed, except for what it has detected.
    pub(super) fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Stop> {
        let mut take = Take::new(input);
        let package_is_over = self.package_remaining() == Some(0);
        match &mut self.state {
            State::FileHeader => self.file_header(&mut take),
            State::Configuration => self.configuration(&mut take),
            State::Element | State::PackageTail if package_is_over => {
                self.package_end = None;
                self.state = if self.nested {
                    State::End
                } else {
                    State::Element
                };
                Ok(event(&take, Event::PackageEnd))
            }
            State::Element => self.element(&mut take),
            State::Body { .. } => Ok(Step::InBody),
            State::Footer { header, length } => {
                let (header, length) = (header.clone(), *length);
                self.footer(&mut take, &header, length)
            }
            State::PackageTail => {
                let chunk = some_of(&mut take, input, u32::MAX)?;
                Ok(event(&take, Event::PackageTail(chunk)))
            }
            State::AfterEof => self.after_eof(&mut take),
            State::Trailer { remaining: 0, .. } => {
                self.state = State::End;
                Ok(event(&take, Event::TrailerEnd))
            }
            State::Trailer { remaining, .. } => {
                let chunk = some_of(&mut take, input, *remaining)?;
                let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
                *remaining = remaining.saturating_sub(length);
                Ok(event(&take, Event::TrailerChunk(chunk)))
            }
            State::End => Ok(Step::End),
        }
    }

    fn file_header<'a>(&mut self, take: &mut Take<'a>) -> Result<Step<'a>, Stop> {
        let found = take.u32_be()?;
        if found != FILE_MAGIC {
            return fail(0, StreamErrorKind::BadMagic { found });
        }
        match take.u32_be()? {
            FILE_VERSION => {}
            OBSOLETE_FILE_VERSION => return fail(4, StreamErrorKind::ObsoleteVersion),
            found => return fail(4, StreamErrorKind::UnsupportedVersion { found }),
        }
        self.state = match self.options.configuration {
            Presence::Absent => State::Element,
            Presence::Detect | Presence::Required => State::Configuration,
        };
        Ok(event(take, Event::Header))
    }

    fn configuration<'a>(&mut self, take: &mut Take<'a>) -> Result<Step<'a>, Stop> {
        let found = take.clone().u8()?;
        if found != mark::CONFIGURATION {
            if self.options.configuration == Presence::Required {
                return fail(0, StreamErrorKind::MissingConfiguration { found });
            }
            self.state = State::Element;
            return self.element(take);
        }
        let configuration = configuration::parse(take, &self.options.limits)?;
        self.state = State::Element;
        Ok(event(take, Event::Configuration(configuration)))
    }

    fn element<'a>(&mut self, take: &mut Take<'a>) -> Result<Step<'a>, Stop> {
        let found = take.u8()?;
        if let Some(kind) = SectionKind::from_byte(found) {
            return self.section_header(take, kind);
        }
        let previous = || self.previous.and_then(|id| self.sections.name(id));
        let kind = match found {
            mark::COMMAND => return self.command(take),
            mark::EOF if self.package_end.is_some() => StreamErrorKind::EofInPackage,
            mark::EOF => {
                self.state = State::AfterEof;
                return Ok(event(take, Event::Eof));
            }
            mark::SUBSECTION => StreamErrorKind::StraySubsection {
                previous: previous(),
            },
            mark::TRAILER => StreamErrorKind::StrayTrailer {
                previous: previous(),
            },
            mark::CONFIGURATION => StreamErrorKind::StrayConfiguration,
            mark::FOOTER => StreamErrorKind::StrayFooter {
                previous: previous(),
            },
            found => StreamErrorKind::UnknownElement { found },
        };
        fail(0, kind)
    }

    fn section_header<'a>(
        &mut self,
        take: &mut Take<'a>,
        kind: SectionKind,
    ) -> Result<Step<'a>, Stop> {
        let section_id = SectionId(take.u32_be()?);
        let header = if kind.names_owner() {
            let at = take.at();
            let Ok(idstr) = IdStr::new(take.counted()?) else {
                return fail(at, StreamErrorKind::EmptyIdStr { section_id });
            };
            let header = SectionHeader {
                kind,
                section_id,
                idstr,
                instance_id: InstanceId(take.u32_be()?),
                version_id: VersionId(take.u32_be()?),
            };
            let id_zero = kind == SectionKind::Start && section_id == SectionId(0);
            if id_zero && !self.warned_of_id_zero {
                self.warned_of_id_zero = true;
                let event = Event::Warning(Warning::SectionIdZero(header));
                return Ok(Step::Event { consumed: 0, event });
            }
            let limit = self.options.limits.sections;
            if let Err(kind) = self.sections.define(&header, limit) {
                return fail(1, kind);
            }
            header
        } else {
            match self.sections.look_up(kind, section_id) {
                Ok(header) => header,
                Err(kind) => return fail(1, kind),
            }
        };
        self.previous = Some(section_id);
        self.state = State::Body {
            header: header.clone(),
            length: 0,
        };
        Ok(event(take, Event::Section(header)))
    }

    fn footer<'a>(
        &mut self,
        take: &mut Take<'a>,
        header: &SectionHeader,
        body_length: u64,
    ) -> Result<Step<'a>, Stop> {
        if self.footers == Presence::Detect {
            let at_end = self.package_remaining() == Some(0);
            let footer = !at_end && take.clone().u8()? == mark::FOOTER;
            self.footers = footer.into();
        }
        let footer = self.footers == Presence::Required;
        if footer {
            let found = take.u8()?;
            if found != mark::FOOTER {
                let section = header.name();
                return fail(0, StreamErrorKind::FooterMark { section, found });
            }
            let found = SectionId(take.u32_be()?);
            if found != header.section_id {
                let kind = StreamErrorKind::FooterId {
                    section: header.name(),
                    found,
                    found_name: self.sections.name(found).map(Box::new),
                };
                return fail(1, kind);
            }
        }
        self.state = State::Element;
        let closed = Event::SectionClosed {
            section_id: header.section_id,
            body_length,
            footer,
        };
        Ok(event(take, closed))
    }

    fn command<'a>(&mut self, take: &mut Take<'a>) -> Result<Step<'a>, Stop> {
        let id = CommandId(take.u16_be()?);
        let length = take.u16_be()?;
        if let Err(kind) = command::check_length(id, length) {
            let unknown = matches!(kind, StreamErrorKind::UnknownCommand { .. });
            return fail(if unknown { 1 } else { 3 }, kind);
        }
        let reads_main_channel = matches!(
            id,
            CommandId::POSTCOPY_ADVISE
                | CommandId::POSTCOPY_RAM_DISCARD
                | CommandId::PACKAGED
                | CommandId::RECV_BITMAP
        );
        if reads_main_channel && self.package_end.is_some() {
            return fail(1, StreamErrorKind::CommandInPackage { command: id });
        }
        let at = take.at();
        let payload = take.bytes(usize::from(length))?;
        let command = match Command::decode(id, payload) {
            Ok(command) => command,
            Err(kind) => return fail(at, kind),
        };
        match &command {
            Command::Packaged { length } => {
                let limit = self.options.limits.package;
                if *length > limit {
                    let length = *length;
                    return fail(at, StreamErrorKind::PackageTooLong { length, limit });
                }
                let start = self.offset.plus(as_u64(take.at()));
                self.package_end = Some(start.plus(u64::from(*length)));
                self.package_is_fresh = true;
                return Ok(event(take, Event::PackageBegin { length: *length }));
            }
            Command::PostcopyListen => self.postcopy = true,
            Command::PostcopyRun => {
                self.postcopy = true;
                if self.package_end.is_some() {
                    self.state = State::PackageTail;
                }
            }
            _ => {}
        }
        Ok(event(take, Event::Command(command)))
    }

    fn after_eof<'a>(&mut self, take: &mut Take<'a>) -> Result<Step<'a>, Stop> {
        if self.options.trailer == Presence::Absent || self.postcopy {
            self.state = State::End;
            return Ok(Step::End);
        }
        let found = take.clone().u8()?;
        if found != mark::TRAILER {
            if self.options.trailer == Presence::Required {
                return fail(0, StreamErrorKind::MissingTrailer { found });
            }
            self.state = State::End;
            return Ok(event(take, Event::Warning(Warning::NotATrailer { found })));
        }
        take.u8()?;
        let at = take.at();
        let length = take.u32_be()?;
        let limit = self.options.limits.trailer;
        if length > limit {
            return fail(at, StreamErrorKind::TrailerTooLong { length, limit });
        }
        self.state = State::Trailer {
            length,
            remaining: length,
        };
        Ok(event(take, Event::TrailerBegin { length }))
    }

    /// What is being read when only `rest` is left.
    pub(super) fn place(&self, rest: &[u8]) -> Place {
        match &self.state {
            State::FileHeader => Place::FileHeader,
            State::Configuration => Place::Configuration,
            State::Element => self.element_place(rest),
            State::Body { header, .. } => Place::Body(header.name()),
            State::Footer { header, .. } => Place::Footer(header.name()),
            State::PackageTail => Place::Package,
            State::AfterEof if rest.is_empty() => Place::BeforeTrailer,
            State::AfterEof | State::End => Place::TrailerHeader,
            State::Trailer { length, remaining } => Place::Trailer {
                have: length
                    .saturating_sub(*remaining)
                    .saturating_add(u32::try_from(rest.len()).unwrap_or(u32::MAX))
                    .min(*length),
                length: *length,
            },
        }
    }

    fn element_place(&self, rest: &[u8]) -> Place {
        let mut take = Take::new(rest);
        match take.u8().ok() {
            Some(mark::COMMAND) => Place::Command(take.u16_be().ok().map(CommandId)),
            Some(byte) if SectionKind::from_byte(byte).is_some() => {
                Place::SectionHeader(take.u32_be().ok().map(SectionId))
            }
            _ if self.package_end.is_some() => Place::Package,
            _ => Place::BetweenElements,
        }
    }
}

fn event<'a>(take: &Take<'_>, event: Event<'a>) -> Step<'a> {
    Step::Event {
        consumed: take.at(),
        event,
    }
}

/// Takes as much of the input as there is, at least one byte and at most `limit`.
fn some_of<'a>(take: &mut Take<'a>, input: &[u8], limit: u32) -> Result<&'a [u8], Stop> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(take.bytes(input.len().min(limit).max(1))?)
}
