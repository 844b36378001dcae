//! Differences of two streams, a line each.

use std::io::{self, Write};

use vmstate_desc::{Codec, Element, Field, Scalars, Value};

use super::numbers::{Excerpt, scalar_of};
use super::{Paint, counted, size};
use crate::diff::{Compared, Difference, Operand, Side, section_name};

/// Lines that are written for the elements of one array.
const ELEMENTS: u64 = 8;
/// Bytes of a buffer that are shown.
const EXCERPT: usize = 8;

/// Writes differences as they are found.
#[derive(Debug)]
pub struct Differences<W: Write> {
    out: W,
    paint: Paint,
    all: bool,
    /// The array whose elements are being told, and how many of them differed.
    array: String,
    elements: u64,
    error: Option<io::Error>,
}

impl<W: Write> Differences<W> {
    /// A writer to `out`, in the colours of a terminal or without; all elements of arrays, or the first few.
    pub fn new(out: W, colour: bool, all: bool) -> Self {
        Self {
            out,
            paint: Paint::new(colour),
            all,
            array: String::new(),
            elements: 0,
            error: None,
        }
    }

    /// Writes a line.
    pub fn tell(&mut self, difference: &Difference<'_>) {
        if self.error.is_none()
            && let Err(e) = self.line(difference)
        {
            self.error = Some(e);
        }
    }

    /// Writes how it ended. `complete`: both streams could be read to their ends.
    ///
    /// # Errors
    /// The first error of the output.
    pub fn finish(mut self, compared: &Compared, complete: bool) -> io::Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.end_array()?;
        let Paint {
            red, green, off, ..
        } = self.paint;
        let blocks = match (compared.blocks, compared.contents) {
            (0, _) => String::new(),
            (n, 0) => format!(" and {} (without their contents)", counted(n, "RAM block")),
            (n, m) if m < n => {
                format!(" and {} ({m} with their contents)", counted(n, "RAM block"))
            }
            (n, _) => format!(" and {} with their contents", counted(n, "RAM block")),
        };
        let sections = counted(compared.sections, "section");
        match compared.differences {
            0 if !complete => writeln!(
                self.out,
                "{red}no difference up to where a stream became unreadable{off}: {sections}{blocks} compared"
            )?,
            0 => writeln!(
                self.out,
                "{green}identical{off}: {sections}{blocks} compared"
            )?,
            n => writeln!(
                self.out,
                "{red}{}{off}: {sections}{blocks} compared",
                counted(n, "difference")
            )?,
        }
        self.out.flush()
    }

    fn end_array(&mut self) -> io::Result<()> {
        if self.elements > ELEMENTS && !self.all {
            let more = self.elements - ELEMENTS;
            writeln!(
                self.out,
                "{}: … {} more",
                self.array,
                counted(more, "differing element")
            )?;
        }
        self.elements = 0;
        self.array.clear();
        Ok(())
    }

    fn line(&mut self, difference: &Difference<'_>) -> io::Result<()> {
        if let Difference::Field { section, path, .. } = difference
            && let Some((array, _)) = path.strip_suffix(']').and_then(|p| p.rsplit_once('['))
        {
            let array = format!("{}: {array}", section_name(section));
            if self.array != array {
                self.end_array()?;
                self.array = array;
            }
            self.elements += 1;
            if self.elements > ELEMENTS && !self.all {
                return Ok(());
            }
        } else {
            self.end_array()?;
        }
        let out = &mut self.out;
        match difference {
            Difference::Machine { what, a, b } => {
                let shown = |v: &Option<String>| v.clone().unwrap_or_else(|| "none".to_owned());
                writeln!(out, "{what}: {} -> {}", shown(a), shown(b))
            }
            Difference::Capability { only_in, name } => {
                writeln!(out, "capability {name}: only in {}", only_in.name())
            }
            Difference::Section { only_in, section } => writeln!(
                out,
                "section {}: only in {} (version {}, {} bytes)",
                section_name(section),
                only_in.name(),
                section.version_id,
                section.length
            ),
            Difference::Header {
                section,
                what,
                a,
                b,
            } => writeln!(out, "section {}: {what} {a} -> {b}", section_name(section)),
            Difference::Order { of, first, second } => writeln!(
                out,
                "{of} order: {first} stands before {second} in A, behind it in B"
            ),
            Difference::Block { only_in, block } => writeln!(
                out,
                "RAM block {}: only in {} ({})",
                block.name,
                only_in.name(),
                size(block.used_length)
            ),
            Difference::BlockShape { block, what, a, b } => {
                let shown =
                    |v: &Option<u64>| v.map_or_else(|| "none".to_owned(), |v| format!("{v:#x}"));
                writeln!(
                    out,
                    "RAM block {}: {what} {} -> {}",
                    block.name,
                    shown(a),
                    shown(b)
                )
            }
            Difference::BlockContent { a, b } => {
                write!(out, "RAM block {}: content differs: sha256 ", a.name)?;
                digest(a.sha256.as_ref(), out)?;
                write!(out, " -> ")?;
                digest(b.sha256.as_ref(), out)?;
                writeln!(out)
            }
            Difference::Field {
                section,
                path,
                a,
                b,
            } => field(&section_name(section), path, a, b, out),
        }
    }
}

fn digest(digest: Option<&[u8; 32]>, out: &mut impl Write) -> io::Result<()> {
    for byte in digest.into_iter().flatten() {
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

fn field(
    section: &str,
    path: &str,
    a: &Operand<'_>,
    b: &Operand<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let path = if path.is_empty() { "content" } else { path };
    write!(out, "{section}: {path}: ")?;
    match (a, b) {
        (a, Operand::Missing) => writeln!(out, "only in {}{}", Side::A.name(), behind(a)),
        (Operand::Missing, b) => writeln!(out, "only in {}{}", Side::B.name(), behind(b)),
        (Operand::Bytes(a), Operand::Bytes(b)) => bytes(a, b, out),
        (a, b) => writeln!(out, "{} -> {}", shown(a), shown(b)),
    }
}

/// What only one has, in parentheses.
fn behind(operand: &Operand<'_>) -> String {
    match operand {
        Operand::Subsection => " (subsection)".to_owned(),
        Operand::Value(_, Value::Struct(_)) => " (struct)".to_owned(),
        operand => format!(": {}", shown(operand)),
    }
}

fn shown(operand: &Operand<'_>) -> String {
    match operand {
        Operand::Scalar(field, scalar) => scalar_of(field, *scalar),
        Operand::Value(field, value) => whole(field, value),
        Operand::Length(n) => counted(*n as u64, "element"),
        Operand::Type(name) => format!("type {name}"),
        Operand::Version(version) => format!("version {version}"),
        Operand::Bytes(bytes) => excerpt(bytes),
        Operand::Chunks(n) => counted(*n as u64, "chunk"),
        Operand::Subsection => "subsection".to_owned(),
        Operand::Missing => "none".to_owned(),
    }
}

fn whole(field: &Field, value: &Value) -> String {
    match value {
        Value::Scalar(scalar) => scalar_of(field, *scalar),
        Value::OddBool(byte) => format!("true ({byte:#04x})"),
        Value::Absent => "absent".to_owned(),
        Value::Scalars(Scalars::U8(bytes))
            if matches!(field.element, Element::Value(Codec::Buffer(_))) =>
        {
            excerpt(bytes)
        }
        Value::Scalars(values) => counted(values.len() as u64, "element"),
        Value::Bytes(bytes) => excerpt(bytes),
        Value::Struct(_) => "struct".to_owned(),
        Value::List(values) => counted(values.len() as u64, "element"),
        Value::Tree(nodes) => counted(nodes.len() as u64, "node"),
        _ => "none".to_owned(),
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let most = EXCERPT;
    Excerpt { bytes, most }.to_string()
}

/// Two buffers: where the first difference is, and what stands there.
fn bytes(a: &[u8], b: &[u8], out: &mut impl Write) -> io::Result<()> {
    if a.len() != b.len() {
        write!(out, "{} bytes -> {} bytes; ", a.len(), b.len())?;
    }
    let differing = a.iter().zip(b).filter(|(x, y)| x != y).count();
    let Some(at) = a.iter().zip(b).position(|(x, y)| x != y) else {
        return writeln!(out, "the shorter is the beginning of the longer");
    };
    let piece = |bytes: &[u8]| {
        let words = bytes.iter().skip(at).take(EXCERPT);
        let words: Vec<_> = words.map(|b| format!("{b:02x}")).collect();
        let more = if bytes.len() > at + EXCERPT {
            " …"
        } else {
            ""
        };
        format!("{}{more}", words.join(" "))
    };
    writeln!(
        out,
        "{} of {} differing, from byte {at:#x}: {} -> {}",
        differing,
        a.len().min(b.len()),
        piece(a),
        piece(b)
    )
}
