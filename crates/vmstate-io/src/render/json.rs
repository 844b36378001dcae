//! JSON, as `docs/inspect-json.md` describes it.

mod differences;

use std::io::{self, Write};

use vmstate_desc::{Codec, DynState, Element, Field, Scalar, Scalars, Value};
use vmstate_wire::stream::{Command, Configuration};
use vmstate_wire::vmdesc::VmdescDialect;

use super::layout::{element_size, marker_size, scalar_size, subsection_header, value_size};
use super::{Accounts, JsonOut, Members, View};
use crate::inspect::{
    Analysis, BitmapChunk, BitmapChunkBody, Block, Channel, CommandAt, Content, Kind, Pages,
    Report, Section,
};

pub use differences::{DIFF_FORMAT, Differences};

/// Name and version of the JSON of an inspection.
pub const INSPECT_FORMAT: &str = "vmstate-inspect/1";
/// Name and version of the JSON of a verification.
pub const VERIFY_FORMAT: &str = "vmstate-verify/1";

/// Writes what was found in a stream.
///
/// # Errors
/// Of the output.
pub fn inspection(analysis: &Analysis, view: &View, out: impl Write) -> io::Result<()> {
    let report = &analysis.report;
    let view = &view.suited(report);
    let mut out = JsonOut::new(out);
    out.open_object();
    out.line();
    out.text("format", INSPECT_FORMAT);
    overview(report, view, &mut out);
    out.line();
    out.key("sections");
    out.open_array();
    for section in &report.sections {
        if view.sections.wants(&section.idstr) {
            out.line();
            self::section(section, view, &mut out);
        }
    }
    out.line();
    out.close_array();
    ram(report, view, &mut out);
    commands(&report.commands, &mut out);
    channels(&report.channels, &mut out);
    trailer(report, &mut out);
    findings(analysis, &mut out);
    out.line();
    out.close_object();
    out.finish()
}

/// Writes whether every byte of a stream is accounted for.
///
/// # Errors
/// Of the output.
pub fn verification(analysis: &Analysis, view: &View, out: impl Write) -> io::Result<()> {
    let report = &analysis.report;
    let accounts = Accounts::of(analysis);
    let mut out = JsonOut::new(out);
    out.open_object();
    out.line();
    out.text("format", VERIFY_FORMAT);
    out.line();
    out.key("ok");
    out.boolean(analysis.is_clean());
    overview(report, view, &mut out);
    out.line();
    out.key("accounts");
    out.open_object();
    out.number("described", accounts.described);
    out.number("described_sections", accounts.described_sections);
    out.number("ram", accounts.pages);
    out.number("opaque", accounts.opaque);
    out.number("opaque_sections", accounts.opaque_sections);
    out.number("trailer", accounts.trailer);
    out.number("framing", accounts.framing);
    out.close_object();
    channels(&report.channels, &mut out);
    trailer(report, &mut out);
    findings(analysis, &mut out);
    out.line();
    out.close_object();
    out.finish()
}

fn overview(report: &Report, view: &View, out: &mut JsonOut<impl Write>) {
    let configuration = report.configuration.as_ref();
    out.line();
    out.text("file", &view.name);
    out.line();
    out.text("protocol", if report.is_ber { "ber" } else { "qemu" });
    out.line();
    out.number("length", report.length);
    out.line();
    out.key("machine");
    match configuration {
        Some(configuration) => out.string(&configuration.machine.to_string()),
        None => out.null(),
    }
    out.line();
    out.number("page_size", report.page_size);
    out.line();
    out.key("capabilities");
    out.open_array();
    for capability in configuration
        .map(Configuration::capabilities)
        .unwrap_or_default()
    {
        out.string(&capability.to_string());
    }
    out.close_array();
    out.line();
    out.key("uuid");
    match configuration.and_then(Configuration::uuid) {
        Some(uuid) => out.hex(&uuid),
        None => out.null(),
    }
}

fn section(section: &Section, view: &View, out: &mut JsonOut<impl Write>) {
    out.open_object();
    out.text("idstr", &section.idstr);
    out.number("instance_id", section.instance_id.into());
    out.number("version_id", section.version_id.into());
    out.number("section_id", section.section_id.into());
    out.text("kind", section.kind.name());
    out.number("offset", section.offset);
    out.number("payload_offset", section.payload_offset);
    out.number("length", section.length);
    out.number("parts", section.parts);
    out.key("inferred");
    out.boolean(section.inferred);
    out.key("state");
    match &section.content {
        Content::Described(state) | Content::Dumped(state) => object(state, out),
        Content::Opaque(bytes) => out.hex(bytes),
        Content::DirtyBitmaps(chunks) => dirty_bitmaps(chunks, out),
        Content::Ram | Content::Left => out.null(),
    }
    if view.offsets
        && section.kind == Kind::Full
        && let Content::Described(state) = &section.content
    {
        out.key("fields");
        out.open_array();
        let mut places = Places {
            out,
            path: String::new(),
            at: section.payload_offset,
        };
        places.state(state);
        out.close_array();
    }
    out.close_object();
}

/// A state as an object: fields, then subsections.
pub(crate) fn object(state: &DynState, out: &mut JsonOut<impl Write>) {
    let members = Members::of(state);
    out.open_object();
    for (i, (field, value)) in state.fields().enumerate() {
        out.key(members.field(i, field));
        self::value(field, value, out);
    }
    for (i, subsection) in state.subsections().enumerate() {
        out.key(members.subsection(i));
        object(subsection, out);
    }
    out.close_object();
}

/// The value of a field, or of one of its elements.
pub(crate) fn value(field: &Field, value: &Value, out: &mut JsonOut<impl Write>) {
    match value {
        Value::Scalar(scalar) => self::scalar(*scalar, out),
        // Any byte but 0 counts as true.
        Value::OddBool(_) => out.boolean(true),
        Value::Scalars(values) => scalars(field, values, out),
        Value::Bytes(bytes) => match field.element {
            Element::Value(Codec::Capability) => out.string(&String::from_utf8_lossy(bytes)),
            _ => out.hex(bytes),
        },
        Value::Struct(state) => object(state, out),
        Value::List(values) => {
            out.open_array();
            for value in values {
                self::value(field, value, out);
            }
            out.close_array();
        }
        Value::Tree(nodes) => {
            out.open_array();
            for (key, value) in nodes {
                out.open_object();
                out.key("key");
                self::value(field, key, out);
                out.key("value");
                self::value(field, value, out);
                out.close_object();
            }
            out.close_array();
        }
        _ => out.null(),
    }
}

/// A scalar: an integer, a boolean, or the bits of a double in hex.
pub(crate) fn scalar(scalar: Scalar, out: &mut JsonOut<impl Write>) {
    match scalar {
        Scalar::Bool(v) => out.boolean(v),
        Scalar::U8(v) => out.unsigned(v.into()),
        Scalar::U16(v) => out.unsigned(v.into()),
        Scalar::U32(v) => out.unsigned(v.into()),
        Scalar::U64(v) => out.unsigned(v),
        Scalar::I8(v) => out.signed(v.into()),
        Scalar::I16(v) => out.signed(v.into()),
        Scalar::I32(v) => out.signed(v.into()),
        Scalar::I64(v) => out.signed(v),
        Scalar::F64(v) => out.hex(&v.to_bits().to_be_bytes()),
        _ => out.null(),
    }
}

fn scalars(field: &Field, values: &Scalars, out: &mut JsonOut<impl Write>) {
    match (&field.element, values) {
        (Element::Value(Codec::Buffer(_)), Scalars::U8(bytes)) => return out.hex(bytes),
        (Element::Value(Codec::Bitmap(_)), Scalars::U64(words)) => {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            return out.hex(&bytes);
        }
        _ => {}
    }
    let is_bool = field.element == Element::Value(Codec::Bool);
    out.open_array();
    match values {
        // An array in which a byte is neither 0 nor 1.
        Scalars::U8(v) if is_bool => v.iter().for_each(|v| out.boolean(*v != 0)),
        Scalars::U8(v) => v.iter().for_each(|v| out.unsigned(u64::from(*v))),
        Scalars::U32(v) => v.iter().for_each(|v| out.unsigned(u64::from(*v))),
        Scalars::U64(v) => v.iter().for_each(|v| out.unsigned(*v)),
        values => values.iter().for_each(|v| scalar(v, out)),
    }
    out.close_array();
}

/// Writes where each field stands.
struct Places<'o, W: Write> {
    out: &'o mut JsonOut<W>,
    path: String,
    at: u64,
}

impl<W: Write> Places<'_, W> {
    fn state(&mut self, state: &DynState) {
        let members = Members::of(state);
        for (i, (field, value)) in state.fields().enumerate() {
            let length = self.path.len();
            self.enter(members.field(i, field));
            self.value(field, value);
            self.path.truncate(length);
        }
        for (i, subsection) in state.subsections().enumerate() {
            let length = self.path.len();
            self.enter(members.subsection(i));
            self.at += subsection_header(&vmstate_desc::SaveState::description(subsection).name);
            self.state(subsection);
            self.path.truncate(length);
        }
    }

    fn enter(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('/');
        }
        self.path.push_str(name);
    }

    fn value(&mut self, field: &Field, value: &Value) {
        let listed = matches!(field.element, Element::List(..));
        match value {
            Value::Struct(state) => self.state(state),
            Value::List(values) => {
                for (i, value) in values.iter().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{i}]"));
                    self.at += u64::from(listed) + marker_size(field, value);
                    match value {
                        Value::Struct(state) => self.state(state),
                        value => self.leaf(field, value),
                    }
                    self.path.truncate(length);
                }
                self.at += u64::from(listed);
            }
            value => self.leaf(field, value),
        }
    }

    fn leaf(&mut self, field: &Field, value: &Value) {
        let size = match value {
            Value::Scalars(values) => values.len() as u64 * scalar_size(values),
            Value::Tree(_) => value_size(field, value),
            value => element_size(field, value) - marker_size(field, value),
        };
        self.out.open_object();
        self.out.text("path", &self.path);
        self.out.number("offset", self.at);
        self.out.number("size", size);
        self.out.text("type", field.element.type_name());
        self.out.close_object();
        self.at += size;
    }
}

pub(crate) fn dirty_bitmaps(chunks: &[BitmapChunk], out: &mut JsonOut<impl Write>) {
    out.open_array();
    for chunk in chunks {
        out.open_object();
        out.text("node", &chunk.node);
        out.text("bitmap", &chunk.bitmap);
        match &chunk.body {
            BitmapChunkBody::Start {
                granularity,
                enabled,
                persistent,
            } => {
                out.text("kind", "start");
                out.number("granularity", (*granularity).into());
                out.key("enabled");
                out.boolean(*enabled);
                out.key("persistent");
                out.boolean(*persistent);
            }
            BitmapChunkBody::Bits {
                first_sector,
                sectors,
                data,
            } => {
                out.text("kind", "bits");
                out.number("first_sector", *first_sector);
                out.number("sectors", (*sectors).into());
                out.key("data");
                match data {
                    Some(bytes) => out.hex(bytes),
                    None => out.null(),
                }
            }
            BitmapChunkBody::Complete => out.text("kind", "complete"),
        }
        out.close_object();
    }
    out.close_array();
}

fn ram(report: &Report, view: &View, out: &mut JsonOut<impl Write>) {
    out.line();
    out.key("ram");
    out.open_object();
    pages(&report.ram.pages, out);
    out.number("multifd_flushes", report.ram.multifd_flushes);
    out.key("blocks");
    out.open_array();
    for block in &report.ram.blocks {
        out.line();
        self::block(block, view, out);
    }
    out.line();
    out.close_array();
    out.close_object();
}

fn block(block: &Block, view: &View, out: &mut JsonOut<impl Write>) {
    out.open_object();
    out.text("idstr", &block.name.to_string());
    out.number("used_length", block.used_length);
    out.key("page_size");
    out.optional(block.page_size);
    out.key("ignored");
    out.boolean(block.ignored);
    if view.pages {
        pages(&block.pages, out);
    }
    if let Some(digest) = &block.sha256 {
        out.key("sha256");
        out.hex(digest);
    }
    if let Some(nonzero) = block.nonzero_pages {
        out.number("nonzero_pages", nonzero);
    }
    out.close_object();
}

fn pages(pages: &Pages, out: &mut JsonOut<impl Write>) {
    out.key("pages");
    out.open_object();
    for (name, count) in pages.by_name() {
        out.number(name, count);
    }
    out.close_object();
}

fn commands(commands: &[CommandAt], out: &mut JsonOut<impl Write>) {
    out.line();
    out.key("commands");
    out.open_array();
    for at in commands {
        out.line();
        out.open_object();
        out.text("name", &at.command.id().to_string());
        out.number("offset", at.offset);
        out.key("packaged");
        out.boolean(at.packaged);
        payload(&at.command, out);
        out.close_object();
    }
    if !commands.is_empty() {
        out.line();
    }
    out.close_array();
}

fn payload(command: &Command, out: &mut JsonOut<impl Write>) {
    match command {
        Command::Ping(value) => out.number("value", (*value).into()),
        Command::PostcopyAdvise(Some(advise)) => {
            out.number("page_sizes", advise.page_sizes);
            out.number("target_page_size", advise.target_page_size);
        }
        Command::RamDiscard { block, ranges } => {
            out.text("block", &block.to_string());
            out.key("ranges");
            out.open_array();
            for range in ranges {
                out.open_object();
                out.number("start", range.start);
                out.number("length", range.length);
                out.close_object();
            }
            out.close_array();
        }
        Command::Packaged { length } => out.number("length", (*length).into()),
        Command::RecvBitmap { block } => out.text("block", &block.to_string()),
        _ => {}
    }
}

fn channels(channels: &[Channel], out: &mut JsonOut<impl Write>) {
    out.line();
    out.key("channels");
    out.open_array();
    for channel in channels {
        out.open_object();
        out.text("kind", channel.kind);
        out.key("id");
        out.optional(channel.id.map(u64::from));
        out.number("length", channel.length);
        out.number("packets", channel.packets);
        out.number("syncs", channel.syncs);
        out.key("compression");
        match channel.compression {
            Some(method) => out.string(&method.to_string()),
            None => out.null(),
        }
        out.close_object();
    }
    out.close_array();
}

fn trailer(report: &Report, out: &mut JsonOut<impl Write>) {
    out.line();
    out.key("trailer");
    match report.trailer {
        Some(trailer) => {
            out.open_object();
            out.number("offset", trailer.offset);
            out.number("length", trailer.length);
            out.text("dialect", dialect_name(trailer.dialect));
            out.number("devices", trailer.devices as u64);
            out.close_object();
        }
        None => out.null(),
    }
}

/// The generation that a trailer's form belongs to.
pub(crate) const fn dialect_name(dialect: VmdescDialect) -> &'static str {
    match dialect {
        VmdescDialect::V7_2 => "7.2",
        VmdescDialect::V10_0 => "10.0",
        _ => "11.1",
    }
}

fn findings(analysis: &Analysis, out: &mut JsonOut<impl Write>) {
    let report = &analysis.report;
    out.line();
    out.key("warnings");
    out.open_array();
    for warning in &report.warnings {
        out.line();
        out.string(warning);
    }
    out.close_array();
    out.line();
    out.key("problems");
    out.open_array();
    for problem in &report.problems {
        out.line();
        out.open_object();
        out.key("offset");
        out.optional(problem.offset);
        out.text("text", &problem.text);
        out.close_object();
    }
    out.close_array();
    out.line();
    out.key("error");
    match &analysis.failure {
        Some(failure) => out.string(&failure.to_string()),
        None => out.null(),
    }
}
