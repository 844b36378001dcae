//! `Hello` and `Verdict`: who speaks, and what the destination says to it.

use super::catalog::CatalogEntry;
use super::counts::{self, SectionCounts};
use super::{Members, frame_tag};
use crate::der::{
    DerReader, Tlv, close, open, put_enumerated, put_octets, put_text, put_tlv, put_uint, tag,
};
use crate::error::{BerError, BerErrorKind};
use crate::frame::finish_members;
use crate::value::AnyValue;

use tag::{constructed, primitive};

/// Most elements of any list in these frames.
const MOST: usize = 65_536;

/// Who speaks, and what it can do. The first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Versions of the protocol, in any order: the highest that both ends have is used.
    pub versions: Vec<u64>,
    /// Who.
    pub role: Role,
    /// The same in all channels of one migration.
    pub session: [u8; 16],
    /// Name and version of the program.
    pub software: String,
    /// What the speaker can do, sorted by name.
    pub capabilities: Vec<Capability>,
    /// The machine.
    pub machine: Option<MachineId>,
    /// Digest of the sorted catalog.
    pub manifest: Option<[u8; 32]>,
    /// The sections to come.
    pub catalog: Option<Vec<CatalogEntry>>,
    /// Closure digests of types that the speaker has.
    pub known: Option<Vec<[u8; 32]>>,
    /// Number of this channel.
    pub channel: Option<u64>,
    /// The speaker's limits.
    pub limits: Option<Vec<Limit>>,
    /// Numbers of elements that no value says, sorted by id string and instance id, at least one. Whoever does not know this member
    /// passes it over.
    pub counts: Option<Vec<SectionCounts>>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The machine that the guest leaves.
    Source = 0,
    /// The machine that it goes to.
    Destination = 1,
    /// Nobody: a file.
    File = 2,
    /// A further channel of the source.
    Channel = 3,
}

/// Something that an end can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: String,
    /// How much it is wanted.
    pub level: Level,
    /// Parameters.
    pub params: Vec<Param>,
}

/// How much a capability is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// If the other end wants it.
    Offered = 0,
    /// If the other end can.
    Wanted = 1,
    /// Nothing works without.
    Required = 2,
}

/// A parameter of a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AnyValue,
}

/// A limit of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineId {
    /// Name of the machine type.
    pub machine_type: String,
    /// Binary logarithm of the target page size.
    pub page_bits: u64,
    /// Architecture.
    pub arch: String,
}

/// What the destination says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Yes or no.
    pub decision: Decision,
    /// Version of the protocol that is spoken from now on.
    pub version: u64,
    /// Capabilities that are used.
    pub capabilities: Vec<Capability>,
    /// Closure digests of types that the destination wants to see.
    pub wanted: Vec<[u8; 32]>,
    /// What it has to say about the machine.
    pub findings: Vec<Finding>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Decision {
    /// Yes.
    Accept = 0,
    /// Yes, but.
    AcceptWithWarnings = 1,
    /// Not before some types have come.
    NeedTypes = 2,
    /// No.
    Refuse = 3,
}

/// Something that does not fit, or fits by adaptation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule.
    pub rule: String,
    /// Where: section and field.
    pub path: String,
    /// What the destination has.
    pub expected: Option<String>,
    /// What the source has.
    pub found: Option<String>,
    /// In words.
    pub text: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// Good to know.
    Info = 0,
    /// May matter.
    Warning = 1,
    /// Impossible.
    Error = 2,
}

pub(super) fn choice<T: Copy>(tlv: &Tlv<'_>, what: &'static str, all: &[T]) -> Result<T, BerError> {
    let number = tlv.enumerated(what)?;
    all.get(usize::from(number)).copied().ok_or_else(|| {
        let found = number.into();
        BerErrorKind::Choice { what, found }.at(tlv.offset)
    })
}

/// Reads all elements of a list.
pub(super) fn list<'a, T>(
    mut reader: DerReader<'a>,
    mut element: impl FnMut(&mut DerReader<'a>) -> Result<T, BerError>,
) -> Result<Vec<T>, BerError> {
    let mut all = Vec::new();
    while !reader.is_empty() {
        if all.len() >= MOST {
            return Err(BerErrorKind::Limit {
                what: "elements of a list",
                found: (all.len() as u64).saturating_add(1),
                limit: MOST as u64,
            }
            .at(reader.offset()));
        }
        all.push(element(&mut reader)?);
    }
    Ok(all)
}

fn digest(reader: &mut DerReader<'_>) -> Result<[u8; 32], BerError> {
    reader
        .expect(tag::OCTETS, "a digest")?
        .array("octets of a digest")
}

fn put_digests(out: &mut Vec<u8>, number: u8, digests: &[[u8; 32]]) {
    let start = open(out, constructed(number));
    for digest in digests {
        put_octets(out, digest);
    }
    close(out, start);
}

fn put_capabilities(out: &mut Vec<u8>, capabilities: &[Capability]) {
    let start = open(out, tag::SEQUENCE);
    for capability in capabilities {
        let at = open(out, tag::SEQUENCE);
        put_text(out, &capability.name);
        put_enumerated(out, capability.level as u8);
        if !capability.params.is_empty() {
            let params = open(out, constructed(0));
            for param in &capability.params {
                let at = open(out, tag::SEQUENCE);
                put_text(out, &param.name);
                out.extend_from_slice(param.value.as_bytes());
                close(out, at);
            }
            close(out, params);
        }
        close(out, at);
    }
    close(out, start);
}

/// A list that is left out when it is empty.
pub(super) fn some<'a>(tlv: &Tlv<'a>) -> Result<DerReader<'a>, BerError> {
    if tlv.content.is_empty() {
        return Err(BerErrorKind::NotCanonical("a list without elements").at(tlv.offset));
    }
    Ok(tlv.reader())
}

fn capabilities(reader: &mut DerReader<'_>) -> Result<Vec<Capability>, BerError> {
    let levels = [Level::Offered, Level::Wanted, Level::Required];
    let outer = reader.nested(tag::SEQUENCE, "capabilities")?;
    let at = outer.offset();
    let all = list(outer, |reader| {
        let mut inner = reader.nested(tag::SEQUENCE, "a capability")?;
        let name = inner.name("name of a capability")?.to_owned();
        let level = inner.expect(tag::ENUMERATED, "level of a capability")?;
        let level = choice(&level, "level of a capability", &levels)?;
        let params = match inner.optional(constructed(0))? {
            Some(tlv) => list(some(&tlv)?, |reader| {
                let mut inner = reader.nested(tag::SEQUENCE, "a parameter")?;
                let name = inner.name("name of a parameter")?.to_owned();
                let value = AnyValue::decode(&mut inner)?;
                inner.finish()?;
                Ok(Param { name, value })
            })?,
            None => Vec::new(),
        };
        inner.finish()?;
        Ok(Capability {
            name,
            level,
            params,
        })
    })?;
    if !all.is_sorted_by(|a, b| a.name < b.name) {
        return Err(BerErrorKind::NotCanonical("capabilities are not sorted by name").at(at));
    }
    Ok(all)
}

impl MachineId {
    fn decode(mut reader: DerReader<'_>) -> Result<Self, BerError> {
        let machine_type = reader.name("name of a machine type")?.to_owned();
        let page_bits = reader.uint("bits of a page", 63)?;
        let arch = reader.name("name of an architecture")?.to_owned();
        finish_members(&mut reader)?;
        Ok(Self {
            machine_type,
            page_bits,
            arch,
        })
    }
}

impl Hello {
    /// What a file says: version 1, these capabilities.
    #[must_use]
    pub fn of_file(software: &str, capabilities: Vec<Capability>) -> Self {
        Self {
            versions: vec![1],
            role: Role::File,
            session: [0; 16],
            software: software.to_owned(),
            capabilities,
            machine: None,
            manifest: None,
            catalog: None,
            known: None,
            channel: None,
            limits: None,
            counts: None,
        }
    }

    /// What a further channel of the migration `session` says: version 1, its number, and nothing that was agreed on before.
    #[must_use]
    pub fn of_channel(software: &str, session: [u8; 16], number: u64) -> Self {
        Self {
            role: Role::Channel,
            session,
            channel: Some(number),
            ..Self::of_file(software, Vec::new())
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::HELLO);
        let versions = open(out, tag::SEQUENCE);
        for version in &self.versions {
            put_uint(out, tag::INTEGER, *version);
        }
        close(out, versions);
        put_enumerated(out, self.role as u8);
        put_octets(out, &self.session);
        put_text(out, &self.software);
        put_capabilities(out, &self.capabilities);
        if let Some(machine) = &self.machine {
            let at = open(out, constructed(0));
            put_text(out, &machine.machine_type);
            put_uint(out, tag::INTEGER, machine.page_bits);
            put_text(out, &machine.arch);
            close(out, at);
        }
        if let Some(manifest) = &self.manifest {
            put_tlv(out, primitive(1), manifest);
        }
        if let Some(catalog) = &self.catalog {
            let at = open(out, constructed(2));
            for entry in catalog {
                entry.encode(out);
            }
            close(out, at);
        }
        if let Some(known) = &self.known {
            put_digests(out, 3, known);
        }
        if let Some(channel) = self.channel {
            put_uint(out, primitive(4), channel);
        }
        if let Some(limits) = &self.limits {
            let at = open(out, constructed(5));
            for limit in limits {
                let at = open(out, tag::SEQUENCE);
                put_text(out, &limit.name);
                put_uint(out, tag::INTEGER, limit.value);
                close(out, at);
            }
            close(out, at);
        }
        if let Some(all) = &self.counts {
            counts::encode(all, constructed(16), out);
        }
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        use Role::{Channel, Destination, File, Source};
        let r = &mut m.reader;
        let versions = list(r.nested(tag::SEQUENCE, "versions")?, |reader| {
            reader.uint("version of the protocol", u64::MAX)
        })?;
        let role = r.expect(tag::ENUMERATED, "role")?;
        let role = choice(&role, "role", &[Source, Destination, File, Channel])?;
        let session = r
            .expect(tag::OCTETS, "session")?
            .array("octets of a session")?;
        let software = r.name("name of a program")?.to_owned();
        let capabilities = capabilities(r)?;
        let machine = match r.optional(constructed(0))? {
            Some(tlv) => Some(MachineId::decode(tlv.reader())?),
            None => None,
        };
        let manifest = match r.optional(primitive(1))? {
            Some(tlv) => Some(tlv.array("octets of a digest")?),
            None => None,
        };
        let catalog = match r.optional(constructed(2))? {
            Some(tlv) => Some(list(tlv.reader(), |reader| {
                CatalogEntry::decode(reader.nested(tag::SEQUENCE, "an entry")?)
            })?),
            None => None,
        };
        let known = match r.optional(constructed(3))? {
            Some(tlv) => Some(list(tlv.reader(), digest)?),
            None => None,
        };
        let channel = match r.optional(primitive(4))? {
            Some(tlv) => Some(tlv.uint("number of a channel", u64::MAX)?),
            None => None,
        };
        let limits = match r.optional(constructed(5))? {
            Some(tlv) => Some(list(tlv.reader(), |reader| {
                let mut inner = reader.nested(tag::SEQUENCE, "a limit")?;
                let name = inner.name("name of a limit")?.to_owned();
                let value = inner.uint("value of a limit", u64::MAX)?;
                inner.finish()?;
                Ok(Limit { name, value })
            })?),
            None => None,
        };
        let counts = match r.optional(constructed(16))? {
            Some(tlv) => Some(counts::decode(&tlv)?),
            None => None,
        };
        m.finish()?;
        Ok(Self {
            versions,
            role,
            session,
            software,
            capabilities,
            machine,
            manifest,
            catalog,
            known,
            channel,
            limits,
            counts,
        })
    }
}

impl Verdict {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::VERDICT);
        put_enumerated(out, self.decision as u8);
        put_uint(out, tag::INTEGER, self.version);
        put_capabilities(out, &self.capabilities);
        if !self.wanted.is_empty() {
            put_digests(out, 0, &self.wanted);
        }
        if !self.findings.is_empty() {
            let at = open(out, constructed(1));
            for finding in &self.findings {
                finding.encode_as(tag::SEQUENCE, out);
            }
            close(out, at);
        }
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        use Decision::{Accept, AcceptWithWarnings, NeedTypes, Refuse};
        let r = &mut m.reader;
        let decision = r.expect(tag::ENUMERATED, "decision")?;
        let all = [Accept, AcceptWithWarnings, NeedTypes, Refuse];
        let decision = choice(&decision, "decision", &all)?;
        let version = r.uint("version of the protocol", u64::MAX)?;
        let capabilities = capabilities(r)?;
        let wanted = match r.optional(constructed(0))? {
            Some(tlv) => list(some(&tlv)?, digest)?,
            None => Vec::new(),
        };
        let findings = match r.optional(constructed(1))? {
            Some(tlv) => list(some(&tlv)?, |reader| {
                Finding::decode(reader.nested(tag::SEQUENCE, "a finding")?)
            })?,
            None => Vec::new(),
        };
        m.finish()?;
        Ok(Self {
            decision,
            version,
            capabilities,
            wanted,
            findings,
        })
    }
}

impl Finding {
    pub(super) fn encode_as(&self, identifier: u8, out: &mut Vec<u8>) {
        let start = open(out, identifier);
        put_enumerated(out, self.severity as u8);
        put_text(out, &self.rule);
        put_text(out, &self.path);
        for (number, text) in [(0, &self.expected), (1, &self.found), (2, &self.text)] {
            if let Some(text) = text {
                put_tlv(out, primitive(number), text.as_bytes());
            }
        }
        close(out, start);
    }

    pub(super) fn decode(mut reader: DerReader<'_>) -> Result<Self, BerError> {
        let severity = reader.expect(tag::ENUMERATED, "severity")?;
        let all = [Severity::Info, Severity::Warning, Severity::Error];
        let severity = choice(&severity, "severity", &all)?;
        let rule = reader.name("name of a rule")?.to_owned();
        let path = reader.expect(tag::TEXT, "a path")?.text()?.to_owned();
        let mut text = |number| match reader.optional(primitive(number))? {
            Some(tlv) => tlv.text().map(|text| Some(text.to_owned())),
            None => Ok(None),
        };
        let (expected, found, words) = (text(0)?, text(1)?, text(2)?);
        reader.finish()?;
        Ok(Self {
            severity,
            rule,
            path,
            expected,
            found,
            text: words,
        })
    }
}
