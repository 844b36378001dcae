//! Finding the end of a section's body without understanding the body.

use memchr::{memchr3_iter, memmem};

use super::command::{CommandId, check_length};
use super::sections::SectionTable;
use super::take::{Need, Take};
use super::types::{IdStr, SectionId, SectionKind, mark};

/// Section ids above this are not believed to be real behind a footer: sources count up from 0.
const LARGEST_PLAUSIBLE_SECTION_ID: u32 = 0xff_ffff;

/// The same without a footer. The end-of-stream mark and the trailer's first bytes make up an id of
/// 0x60000 and above when the body's last byte is 0x01 or 0x04.
const LARGEST_PLAUSIBLE_SECTION_ID_WITHOUT_FOOTER: u32 = 0xffff;

/// Versions above this are not believed to be real. They are signed where they come from, and some
/// are dates: the `eeprom` of network cards has 20061113.
const LARGEST_PLAUSIBLE_VERSION: u32 = 0x7fff_ffff;

/// What is known about the surroundings of a body whose end is to be inferred.
#[derive(Debug, Clone, Copy)]
pub struct InferContext<'a> {
    /// The id of the section that the body belongs to.
    pub section_id: SectionId,
    /// The sections that the stream has defined.
    pub sections: &'a SectionTable,
    /// Whether sections end with a footer.
    pub footers: bool,
    /// Whether the section stands in a package, which has no end-of-stream mark and may end right
    /// behind the section. The input must not go on beyond the package then.
    pub package: bool,
}

/// The outcome of a search for the end of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyEnd {
    /// Undecided before there are at least `min` bytes, counted from the start of the body.
    NeedMore {
        /// Bytes needed, in all.
        min: usize,
    },
    /// The body probably ends here.
    Inferred(InferredEnd),
    /// There is no plausible end in the input, and the input is over.
    NotFound,
}

/// A probable end of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferredEnd {
    /// Length of the body in bytes, without the footer.
    pub length: usize,
    /// What follows, which makes the end plausible.
    pub evidence: Evidence,
}

/// What follows an inferred end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// The end-of-stream mark and the beginning of a description trailer.
    Trailer,
    /// The end-of-stream mark, with nothing behind it.
    EndOfStream,
    /// The end of the package.
    EndOfPackage,
    /// The header of a START or FULL section with this name.
    NamedSection(IdStr),
    /// A PART or END of this section, which has been started before.
    StartedSection(SectionId),
    /// A command with a number and a length that fit.
    Command(CommandId),
}

impl InferredEnd {
    /// Whether the evidence is more than a handful of bytes, so that chance is next to impossible.
    ///
    /// True for a named section and for the trailer.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        matches!(self.evidence, Evidence::NamedSection(_) | Evidence::Trailer)
    }
}

/// Finds the first plausible end of a section's body.
///
/// `body` begins with the first byte of the body and goes on beyond its end; `at_end` tells that
/// there is no more. With footers, an end is the footer of this very section followed by something
/// that can follow a section. Without footers, it is the header of a START or FULL section or the
/// end of the stream, which is much weaker.
///
/// When a body comes in pieces, use [`BodyEndScanner`], which does not start over each time.
///
/// Time is linear in the length of `body`.
#[must_use]
pub fn infer_body_end(body: &[u8], context: &InferContext<'_>, at_end: bool) -> BodyEnd {
    BodyEndScanner::default().scan(body, context, at_end)
}

/// [`infer_body_end`] for a body that comes in pieces: remembers how far it has looked.
#[derive(Debug, Clone, Default)]
pub struct BodyEndScanner {
    /// No end begins before this.
    scanned: usize,
}

impl BodyEndScanner {
    /// A scanner that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on searching. `body` begins with the first byte of the body again, and is longer than
    /// at the last call.
    pub fn scan(&mut self, body: &[u8], context: &InferContext<'_>, at_end: bool) -> BodyEnd {
        let rest = body.get(self.scanned..).unwrap_or(&[]);
        let base = self.scanned;
        let found = if context.footers {
            scan_footers(rest, context, at_end)
        } else {
            scan_headers(rest, context, at_end)
        };
        match found {
            Found::End(at, evidence) => BodyEnd::Inferred(InferredEnd {
                length: base.saturating_add(at),
                evidence,
            }),
            Found::Undecided(at, min) => {
                self.scanned = base.saturating_add(at);
                BodyEnd::NeedMore {
                    min: base.saturating_add(min),
                }
            }
            Found::Nothing => BodyEnd::NotFound,
        }
    }
}

/// Positions count from the start of the bytes given.
enum Found {
    End(usize, Evidence),
    /// Nothing ends before the first number; the second is how many bytes would tell.
    Undecided(usize, usize),
    Nothing,
}

enum Verdict {
    Plausible(Evidence),
    Implausible,
    Undecided(usize),
}

fn scan_footers(rest: &[u8], context: &InferContext<'_>, at_end: bool) -> Found {
    let [a, b, c, d] = context.section_id.0.to_be_bytes();
    let footer = [mark::FOOTER, a, b, c, d];
    for at in memmem::find_iter(rest, &footer) {
        let behind = at.saturating_add(footer.len());
        let next = rest.get(behind..).unwrap_or(&[]);
        match follows_a_section(next, context, at_end) {
            Verdict::Plausible(evidence) => return Found::End(at, evidence),
            Verdict::Implausible => {}
            Verdict::Undecided(min) => return Found::Undecided(at, behind.saturating_add(min)),
        }
    }
    if at_end {
        return Found::Nothing;
    }
    // A footer may be cut by the end of what is here.
    let tail = rest.len().saturating_sub(footer.len().saturating_sub(1));
    Found::Undecided(tail, rest.len().saturating_add(1).max(footer.len()))
}

fn scan_headers(rest: &[u8], context: &InferContext<'_>, at_end: bool) -> Found {
    for at in memchr3_iter(mark::EOF, mark::START, mark::FULL, rest) {
        let next = rest.get(at..).unwrap_or(&[]);
        let verdict = match next.first() {
            Some(&mark::EOF) if context.package => Verdict::Implausible,
            Some(&mark::EOF) => eof_and_trailer(next, at_end),
            _ => named_section(next, context, at_end),
        };
        match verdict {
            Verdict::Plausible(evidence) => return Found::End(at, evidence),
            Verdict::Implausible => {}
            Verdict::Undecided(min) => return Found::Undecided(at, at.saturating_add(min)),
        }
    }
    match (at_end, context.package) {
        (true, true) => Found::End(rest.len(), Evidence::EndOfPackage),
        (true, false) => Found::Nothing,
        (false, _) => Found::Undecided(rest.len(), rest.len().saturating_add(1)),
    }
}

/// Whether `next` can follow the footer of a section.
fn follows_a_section(next: &[u8], context: &InferContext<'_>, at_end: bool) -> Verdict {
    match next.first() {
        None if !at_end => Verdict::Undecided(1),
        None if context.package => Verdict::Plausible(Evidence::EndOfPackage),
        Some(&mark::EOF) if !context.package => eof_and_trailer(next, at_end),
        Some(&(mark::START | mark::FULL)) => named_section(next, context, at_end),
        Some(&(mark::PART | mark::END)) => judge(at_end, started_section(next, context)),
        Some(&mark::COMMAND) => judge(at_end, plausible_command(next)),
        _ => Verdict::Implausible,
    }
}

fn judge(at_end: bool, evidence: Result<Option<Evidence>, Need>) -> Verdict {
    match evidence {
        Ok(Some(evidence)) => Verdict::Plausible(evidence),
        Err(Need(min)) if !at_end => Verdict::Undecided(min),
        _ => Verdict::Implausible,
    }
}

fn eof_and_trailer(next: &[u8], at_end: bool) -> Verdict {
    if at_end && next.len() == 1 {
        return Verdict::Plausible(Evidence::EndOfStream);
    }
    judge(at_end, plausible_trailer(next, at_end))
}

fn plausible_trailer(next: &[u8], at_end: bool) -> Result<Option<Evidence>, Need> {
    let mut take = Take::new(next);
    take.u8()?;
    if take.u8()? != mark::TRAILER {
        return Ok(None);
    }
    let length = usize::try_from(take.u32_be()?).unwrap_or(usize::MAX);
    let fits = !at_end || next.len().saturating_sub(take.at()) >= length;
    Ok((fits && take.u8()? == b'{').then_some(Evidence::Trailer))
}

fn named_section(next: &[u8], context: &InferContext<'_>, at_end: bool) -> Verdict {
    judge(at_end, plausible_header(next, context))
}

fn plausible_header(next: &[u8], context: &InferContext<'_>) -> Result<Option<Evidence>, Need> {
    let mut take = Take::new(next);
    if SectionKind::from_byte(take.u8()?).is_none_or(|kind| !kind.names_owner()) {
        return Ok(None);
    }
    let section_id = take.u32_be()?;
    let largest = if context.footers {
        LARGEST_PLAUSIBLE_SECTION_ID
    } else {
        LARGEST_PLAUSIBLE_SECTION_ID_WITHOUT_FOOTER
    };
    if section_id > largest {
        return Ok(None);
    }
    let length = usize::from(take.u8()?);
    // What there is of the name decides already, which keeps long false names cheap.
    let present = next.get(take.at()..).unwrap_or(&[]);
    let printable = present
        .iter()
        .take(length)
        .all(|byte| matches!(byte, 0x20..=0x7e));
    if !printable {
        return Ok(None);
    }
    let Ok(idstr) = IdStr::new(take.bytes(length)?) else {
        return Ok(None);
    };
    let instance_id = take.u32_be()?;
    let version = take.u32_be()?;
    let known_as_another = context
        .sections
        .get(SectionId(section_id))
        .is_some_and(|known| known.idstr != idstr || known.instance_id.0 != instance_id);
    let plausible = version <= LARGEST_PLAUSIBLE_VERSION && !known_as_another;
    Ok(plausible.then_some(Evidence::NamedSection(idstr)))
}

fn started_section(next: &[u8], context: &InferContext<'_>) -> Result<Option<Evidence>, Need> {
    let mut take = Take::new(next);
    take.u8()?;
    let id = SectionId(take.u32_be()?);
    let started = context
        .sections
        .get(id)
        .is_some_and(|known| known.kind == SectionKind::Start);
    Ok(started.then_some(Evidence::StartedSection(id)))
}

fn plausible_command(next: &[u8]) -> Result<Option<Evidence>, Need> {
    let mut take = Take::new(next);
    take.u8()?;
    let id = CommandId(take.u16_be()?);
    let length = take.u16_be()?;
    Ok(check_length(id, length)
        .is_ok()
        .then_some(Evidence::Command(id)))
}
