//! The state machine of both ends: frames in, frames out.

use std::collections::{HashMap, HashSet};

use vmstate_ber::AnyValue;
use vmstate_ber::frame::{
    Capability, CatalogEntry, Decision, Finding, Frame, FrameKind, Hello, Level, Limit, Note, Role,
    Severity, Status, Verdict, manifest,
};
use vmstate_ber::types::{TypeDef, TypeTable};

use crate::capabilities::{self, BASE, capability, combine};
use crate::counts;
use crate::error::{NegotiateError, NegotiateErrorKind, bounded, misbehaved};
use crate::inventory::Inventory;
use crate::judge::{self, ordered, resolve};
use crate::report::Report;

/// The version of the protocol that this crate speaks.
pub const VERSION: u64 = 1;
/// Most digests in a list: of types that a destination knows, or wants to see.
pub const MAX_DIGESTS: usize = 4096;
/// Most sections in a catalog.
pub const MAX_SECTIONS: usize = 4096;
/// Most numbers of elements that a source tells.
pub const MAX_COUNTS: usize = 16_384;
/// Most types that a source sends for a verdict.
pub const MAX_TYPES: usize = 8192;
/// Most frames of a peer before there is a verdict.
pub const MAX_FRAMES: usize = MAX_TYPES + 64;
/// Most bytes of all types that a source sends for a verdict.
const MAX_TYPES_CONTENT: u64 = 2 << 20;
/// Name of the note behind the types that were wanted. Its value is an OCTET STRING: be32 numbers of the wanted types, in the order
/// in which they were wanted.
pub const TYPES_NOTE: &str = "wanted-types";

/// What an end brings into a negotiation.
#[derive(Debug)]
pub struct Terms {
    /// Versions of the protocol, in any order: the highest that both ends have is used.
    pub versions: Vec<u64>,
    /// Number of the migration; the destination takes the source's.
    pub session: [u8; 16],
    /// Name and version of the program; 1 to 255 bytes.
    pub software: String,
    /// What this end can do, sorted by name.
    pub capabilities: Vec<Capability>,
    /// Of a destination: what it takes at most. Of a source: what it has.
    pub limits: Vec<Limit>,
    /// The machine.
    pub inventory: Inventory,
}

impl Terms {
    /// Terms of version 1 with what it requires, and no more.
    #[must_use]
    pub fn new(software: impl Into<String>, inventory: Inventory) -> Self {
        let base = BASE.map(|name| capability(name, Level::Required));
        Self {
            versions: vec![VERSION],
            session: [0; 16],
            software: software.into(),
            capabilities: base.into(),
            limits: Vec::new(),
            inventory,
        }
    }

    /// The same with this capability, too.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, level: Level) -> Self {
        self.capabilities.push(capability(name, level));
        capabilities::sort(&mut self.capabilities);
        self
    }

    fn hello(&self, role: Role, session: [u8; 16]) -> Hello {
        let source = role == Role::Source;
        let mut known = self.inventory.digests();
        known.truncate(MAX_DIGESTS);
        let counts = match source {
            true => self.inventory.counts(),
            false => Vec::new(),
        };
        Hello {
            versions: self.versions.clone(),
            role,
            session,
            software: self.software.clone(),
            capabilities: self.capabilities.clone(),
            machine: Some(self.inventory.machine().clone()),
            manifest: Some(self.inventory.manifest()),
            catalog: source.then(|| self.inventory.catalog()),
            known: (!source).then_some(known),
            channel: None,
            limits: (!self.limits.is_empty()).then(|| self.limits.clone()),
            counts: (!counts.is_empty()).then_some(counts),
        }
    }
}

/// What both ends have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The version of the protocol.
    pub version: u64,
    /// What is used, sorted by name.
    pub capabilities: Vec<Capability>,
    /// The peer's program.
    pub peer: String,
    /// Closure digests of types that the destination has; at the source.
    pub known: Vec<[u8; 32]>,
    /// What the destination has to say.
    pub report: Report,
}

impl Agreement {
    /// Whether a capability is used.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.capabilities.iter().any(|one| one.name == name)
    }
}

/// Where a negotiation is after a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The peer has to say more.
    Wait,
    /// The migration goes on by this.
    Agreed(Agreement),
    /// The migration does not go on: the reasons are in the report.
    Refused(Report),
}

/// What [`Negotiation::receive`] wants to be done.
#[derive(Debug)]
pub struct Reply {
    /// Frames to be sent now, in this order.
    pub frames: Vec<Frame<'static>>,
    /// All types of the machine are to be sent, before `frames`.
    pub types: bool,
    /// Where the negotiation is.
    pub progress: Progress,
}

impl Reply {
    fn wait() -> Self {
        Self {
            frames: Vec::new(),
            types: false,
            progress: Progress::Wait,
        }
    }
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Hello,
    /// Source: the destination judges.
    Verdict {
        theirs: Hello,
        asked: bool,
    },
    /// Destination: types have been asked for.
    Types {
        theirs: Hello,
        wanted: Vec<[u8; 32]>,
    },
    Over,
}

/// One end of a negotiation, without bytes.
///
/// ```text
/// source                                  destination
/// Hello (versions, capabilities, machine, manifest, catalog)  →
///                                      ←  Hello (…, known types), Verdict
/// if that says needTypes:  TypeDefs, Note "wanted-types"      →
///                                      ←  Verdict accept, acceptWithWarnings or refuse
/// refused: End (cancelled)                                    →
/// ```
#[derive(Debug)]
pub struct Negotiation {
    role: Role,
    terms: Terms,
    state: State,
    /// What the source has sent.
    types: TypeTable,
    frames: usize,
}

impl Negotiation {
    /// The end that the guest leaves. The frame goes out first.
    #[must_use]
    pub fn source(terms: Terms) -> (Self, Hello) {
        let hello = terms.hello(Role::Source, terms.session);
        (Self::new(Role::Source, terms), hello)
    }

    /// The end that the guest goes to. It says nothing before it has heard the source.
    #[must_use]
    pub fn destination(terms: Terms) -> Self {
        Self::new(Role::Destination, terms)
    }

    fn new(role: Role, terms: Terms) -> Self {
        Self {
            role,
            terms,
            state: State::Hello,
            types: TypeTable::default(),
            frames: 0,
        }
    }

    /// The types that the source has sent.
    pub(crate) fn into_types(self) -> TypeTable {
        self.types
    }

    /// The types of this machine.
    pub(crate) fn take_types(&mut self) -> TypeTable {
        std::mem::take(&mut self.terms.inventory.types)
    }

    /// Takes a frame of the peer's. `content` is how many bytes it has, `offset` where it stands in the peer's stream.
    ///
    /// # Errors
    /// [`NegotiateError`]: the peer breaks the rules, or gives up. The connection is of no use any more.
    pub fn receive(
        &mut self,
        frame: Frame<'_>,
        content: u64,
        offset: u64,
    ) -> Result<Reply, NegotiateError> {
        self.frames = self.frames.saturating_add(1);
        bounded("frames before the verdict", self.frames, MAX_FRAMES)?;
        match frame {
            // Whatever they say, they are for people.
            Frame::Note(note) if note.name != TYPES_NOTE => return Ok(Reply::wait()),
            Frame::Unknown { .. } => return Ok(Reply::wait()),
            Frame::End(end) => {
                let reason = end.finding.and_then(|finding| finding.text);
                return Err(NegotiateErrorKind::Ended {
                    status: end.status,
                    reason: reason.unwrap_or_default(),
                }
                .into());
            }
            _ => {}
        }
        match (std::mem::replace(&mut self.state, State::Over), frame) {
            (State::Hello, Frame::Hello(hello)) if self.role == Role::Source => {
                self.hear_destination(hello)
            }
            (State::Hello, Frame::Hello(hello)) => self.hear_source(hello),
            (State::Verdict { theirs, asked }, Frame::Verdict(verdict)) => {
                self.hear_verdict(theirs, asked, verdict)
            }
            (State::Types { theirs, wanted }, Frame::TypeDef(ty)) => {
                self.hear_type(ty, content, offset)?;
                self.state = State::Types { theirs, wanted };
                Ok(Reply::wait())
            }
            (State::Types { theirs, wanted }, Frame::Note(note)) => {
                let Some(ids) = note.value.as_octets() else {
                    return Err(misbehaved("names wanted types in another form than octets"));
                };
                let numbers = resolve(&wanted, ids, &self.types)?;
                self.judge(&theirs, &numbers)
            }
            (state, frame) => Err(NegotiateErrorKind::OutOfTurn {
                found: FrameKind(frame.tag()),
                expected: match state {
                    State::Hello => "Hello",
                    State::Verdict { .. } => "Verdict",
                    State::Types { .. } => "TypeDef",
                    State::Over => "nothing",
                },
            }
            .into()),
        }
    }

    fn hear_destination(&mut self, theirs: Hello) -> Result<Reply, NegotiateError> {
        if theirs.role != Role::Destination {
            return Err(misbehaved(format!(
                "is a {:?}, not a destination",
                theirs.role
            )));
        }
        if theirs.session != self.terms.session {
            return Err(misbehaved("answers another session"));
        }
        let known = theirs.known.as_deref().unwrap_or_default();
        bounded("known types", known.len(), MAX_DIGESTS)?;
        let asked = false;
        self.state = State::Verdict { theirs, asked };
        Ok(Reply::wait())
    }

    fn hear_verdict(
        &mut self,
        theirs: Hello,
        asked: bool,
        verdict: Verdict,
    ) -> Result<Reply, NegotiateError> {
        let errors = verdict
            .findings
            .iter()
            .any(|f| f.severity == Severity::Error);
        match verdict.decision {
            Decision::NeedTypes if asked => Err(misbehaved("wants types twice")),
            Decision::NeedTypes => {
                let ids = self.ids_of(&verdict.wanted)?;
                let asked = true;
                self.state = State::Verdict { theirs, asked };
                let note = Note {
                    name: TYPES_NOTE.to_owned(),
                    value: AnyValue::octets(&ids),
                };
                Ok(Reply {
                    frames: vec![Frame::Note(note)],
                    types: true,
                    progress: Progress::Wait,
                })
            }
            Decision::Refuse => {
                let refused = true;
                let findings = verdict.findings;
                let report = Report { refused, findings };
                Ok(self.over(Vec::new(), Progress::Refused(report)))
            }
            Decision::Accept | Decision::AcceptWithWarnings if errors => {
                Err(misbehaved("accepts in spite of errors"))
            }
            Decision::Accept | Decision::AcceptWithWarnings => {
                if !self.terms.versions.contains(&verdict.version) {
                    let what = format!("chose version {}, which was not offered", verdict.version);
                    return Err(misbehaved(what));
                }
                let (on, missing) = combine(&self.terms.capabilities, &theirs.capabilities);
                if on != verdict.capabilities {
                    return Err(misbehaved("uses other capabilities than both ends have"));
                }
                // Whatever it says: nothing is sent to an end that lacks what this one requires, or requires what this one lacks.
                if missing.iter().any(|f| f.severity == Severity::Error) {
                    let mut findings = verdict.findings;
                    findings.retain(|finding| !missing.contains(finding));
                    findings.extend(missing);
                    let report = Report {
                        refused: true,
                        findings: ordered(findings),
                    };
                    return Ok(self.over(Vec::new(), Progress::Refused(report)));
                }
                let report = Report {
                    refused: false,
                    findings: verdict.findings,
                };
                let agreement = Agreement {
                    version: verdict.version,
                    capabilities: on,
                    peer: theirs.software,
                    known: theirs.known.unwrap_or_default(),
                    report,
                };
                Ok(self.over(Vec::new(), Progress::Agreed(agreement)))
            }
        }
    }

    /// Numbers of the types with these digests: be32.
    fn ids_of(&self, wanted: &[[u8; 32]]) -> Result<Vec<u8>, NegotiateError> {
        bounded("wanted types", wanted.len(), MAX_DIGESTS)?;
        if wanted.is_empty() {
            return Err(misbehaved("wants no types, but says so"));
        }
        let mut ids = Vec::new();
        for digest in wanted {
            let Some(id) = self.terms.inventory.type_id(digest) else {
                return Err(misbehaved("wants a type that is not in the catalog"));
            };
            ids.extend_from_slice(&id.to_be_bytes());
        }
        Ok(ids)
    }

    fn hear_source(&mut self, theirs: Hello) -> Result<Reply, NegotiateError> {
        if theirs.role != Role::Source {
            return Err(misbehaved(format!("is a {:?}, not a source", theirs.role)));
        }
        if theirs.channel.is_some() {
            return Err(misbehaved("numbers its main channel"));
        }
        let hello = self.terms.hello(Role::Destination, theirs.session);
        let mut frames = vec![Frame::Hello(hello)];
        if self.version(&theirs).is_none() {
            let finding = judge::versions(&self.terms.versions, &theirs.versions);
            let mut reply = self.answer(&theirs, vec![finding]);
            frames.append(&mut reply.frames);
            return Ok(Reply { frames, ..reply });
        }
        let catalog = theirs.catalog.as_deref().unwrap_or_default();
        check_catalog(&theirs, catalog)?;
        check_counts(&theirs, catalog)?;
        let mut reply = if theirs.manifest == Some(self.terms.inventory.manifest()) {
            let mut findings = self.about_ends(&theirs);
            findings.extend(counts::findings(&self.terms.inventory, &theirs));
            self.answer(&theirs, findings)
        } else {
            let wanted = judge::unknown(&self.terms.inventory, catalog);
            bounded("unknown types", wanted.len(), MAX_DIGESTS)?;
            if wanted.is_empty() {
                self.judge(&theirs, &HashMap::new())?
            } else {
                let verdict =
                    self.verdict(&theirs, Decision::NeedTypes, wanted.clone(), Vec::new());
                self.state = State::Types { theirs, wanted };
                Reply {
                    frames: vec![Frame::Verdict(verdict)],
                    ..Reply::wait()
                }
            }
        };
        frames.append(&mut reply.frames);
        Ok(Reply { frames, ..reply })
    }

    fn hear_type(&mut self, ty: TypeDef, content: u64, offset: u64) -> Result<(), NegotiateError> {
        let limits = vmstate_ber::Limits {
            types: MAX_TYPES,
            types_content: MAX_TYPES_CONTENT,
            ..vmstate_ber::Limits::default()
        };
        self.types.insert(ty, content, offset, &limits)?;
        Ok(())
    }

    /// The highest version of both.
    fn version(&self, theirs: &Hello) -> Option<u64> {
        let both = self
            .terms
            .versions
            .iter()
            .filter(|v| theirs.versions.contains(v));
        both.max().copied()
    }

    /// Everything but the sections.
    fn about_ends(&self, theirs: &Hello) -> Vec<Finding> {
        let terms = &self.terms;
        let (_, mut findings) = combine(&theirs.capabilities, &terms.capabilities);
        findings.extend(judge::machines(
            terms.inventory.machine(),
            theirs.machine.as_ref(),
        ));
        let limits = theirs.limits.as_deref().unwrap_or_default();
        findings.extend(judge::limits(&terms.limits, limits));
        findings
    }

    /// Compares everything, and answers.
    fn judge(
        &mut self,
        theirs: &Hello,
        numbers: &HashMap<[u8; 32], u32>,
    ) -> Result<Reply, NegotiateError> {
        let mut findings = self.about_ends(theirs);
        let catalog = theirs.catalog.as_deref().unwrap_or_default();
        let inventory = &self.terms.inventory;
        findings.extend(judge::sections(
            inventory,
            catalog,
            &mut self.types,
            numbers,
        )?);
        findings.extend(counts::findings(inventory, theirs));
        Ok(self.answer(theirs, findings))
    }

    fn verdict(
        &self,
        theirs: &Hello,
        decision: Decision,
        wanted: Vec<[u8; 32]>,
        findings: Vec<Finding>,
    ) -> Verdict {
        let (on, _) = combine(&theirs.capabilities, &self.terms.capabilities);
        Verdict {
            decision,
            // Of a refusal for this very reason, the own one.
            version: self.version(theirs).unwrap_or(VERSION),
            capabilities: match decision {
                Decision::Refuse => Vec::new(),
                _ => on,
            },
            wanted,
            findings,
        }
    }

    /// The last word.
    fn answer(&mut self, theirs: &Hello, findings: Vec<Finding>) -> Reply {
        let findings = ordered(findings);
        let worst = findings.first().map(|finding| finding.severity);
        let decision = match worst {
            Some(Severity::Error) => Decision::Refuse,
            Some(Severity::Warning) => Decision::AcceptWithWarnings,
            Some(Severity::Info) | None => Decision::Accept,
        };
        let verdict = self.verdict(theirs, decision, Vec::new(), findings.clone());
        let refused = decision == Decision::Refuse;
        let report = Report { refused, findings };
        let progress = match refused {
            true => Progress::Refused(report),
            false => Progress::Agreed(Agreement {
                version: verdict.version,
                capabilities: verdict.capabilities.clone(),
                peer: theirs.software.clone(),
                known: Vec::new(),
                report,
            }),
        };
        self.over(vec![Frame::Verdict(verdict)], progress)
    }

    fn over(&mut self, frames: Vec<Frame<'static>>, progress: Progress) -> Reply {
        self.state = State::Over;
        Reply {
            frames,
            types: false,
            progress,
        }
    }
}

/// A source says which sections it has, in order, and its manifest is theirs.
fn check_catalog(theirs: &Hello, catalog: &[CatalogEntry]) -> Result<(), NegotiateError> {
    if theirs.catalog.is_none() {
        return Err(misbehaved("sends no catalog"));
    }
    bounded("sections", catalog.len(), MAX_SECTIONS)?;
    let key = |entry: &CatalogEntry| (entry.idstr.clone(), entry.instance);
    if !catalog.is_sorted_by(|a, b| key(a) < key(b)) {
        return Err(misbehaved("sends a catalog that is not sorted"));
    }
    if theirs
        .manifest
        .is_some_and(|found| found != manifest(catalog))
    {
        return Err(misbehaved("sends a manifest that is not its catalog's"));
    }
    Ok(())
}

/// What a source tells numbers of stands in its catalog, and it does not tell too many.
fn check_counts(theirs: &Hello, catalog: &[CatalogEntry]) -> Result<(), NegotiateError> {
    let told = theirs.counts.as_deref().unwrap_or_default();
    let all = told.iter().map(|section| section.counts.len());
    let all = all.fold(0, usize::saturating_add);
    bounded("numbers of elements", all, MAX_COUNTS)?;
    let key = |idstr: &str, instance| (idstr.to_owned(), instance);
    let known: HashSet<_> = catalog.iter().map(|e| key(&e.idstr, e.instance)).collect();
    match told
        .iter()
        .all(|one| known.contains(&key(&one.idstr, one.instance)))
    {
        true => Ok(()),
        false => Err(misbehaved(
            "tells numbers of a section that is not in its catalog",
        )),
    }
}

/// How the source ends its stream when it has been refused.
pub(crate) const REFUSED: Status = Status::Cancelled;
