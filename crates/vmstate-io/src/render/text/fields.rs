//! The tree of a device's fields.

use std::io::{self, Write};

use vmstate_desc::{Codec, DynState, Element, Field, SaveState, Scalar, Scalars, Value};

use super::Paint;
use super::numbers::{Excerpt, bare, scalar, scalar_of};
use crate::render::layout::{element_size, marker_size, subsection_header, value_size};
use crate::render::{Members, View};

/// Bytes of a buffer that are shown.
const EXCERPT: usize = 32;
/// Elements of an array of scalars that are shown, runs of equal ones counting once.
const SCALARS: usize = 16;
/// Elements of an array of structs that are shown, runs of equal ones counting once.
const STRUCTS: usize = 16;
/// Widest column of names.
const WIDEST: usize = 32;

/// Writes a tree of fields and counts where in the stream it is.
pub(super) struct Tree<'o, W: Write> {
    out: &'o mut W,
    offsets: bool,
    all: bool,
    paint: Paint,
    /// Offset of the next value in the stream.
    at: u64,
}

impl<'o, W: Write> Tree<'o, W> {
    pub(super) fn new(out: &'o mut W, view: &View, paint: Paint, at: u64) -> Self {
        Self {
            out,
            offsets: view.offsets,
            all: view.all,
            paint,
            at,
        }
    }

    /// Bytes that nothing describes.
    pub(super) fn opaque(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.margin(1)?;
        self.buffer(bytes, 1)
    }

    pub(super) fn state(&mut self, state: &DynState, depth: usize) -> io::Result<()> {
        let members = Members::of(state);
        let lengths = state
            .fields()
            .enumerate()
            .map(|(i, (field, _))| members.field(i, field).len())
            .filter(|length| *length <= WIDEST);
        let wide = lengths.max().unwrap_or(0);
        for (i, (field, value)) in state.fields().enumerate() {
            let size = value_size(field, value);
            let end = self.at + size;
            self.margin(depth)?;
            let name = members.field(i, field);
            match value {
                Value::Struct(_) => write!(self.out, "{name}")?,
                _ => write!(self.out, "{name:wide$}")?,
            }
            self.value(field, value, depth)?;
            self.at = end;
        }
        for (i, subsection) in state.subsections().enumerate() {
            let description = subsection.description();
            self.margin(depth)?;
            self.at += subsection_header(&description.name);
            let Paint { bold, off, .. } = self.paint;
            writeln!(
                self.out,
                "{bold}{}{off}  version {}",
                members.subsection(i),
                description.version_id
            )?;
            self.state(subsection, depth + 1)?;
        }
        Ok(())
    }

    /// Offset and indentation in front of a line.
    fn margin(&mut self, depth: usize) -> io::Result<()> {
        if self.offsets {
            let Paint { dim, off, .. } = self.paint;
            write!(self.out, "{dim}{:>#12x}{off} ", self.at)?;
        }
        write!(self.out, "{:1$}", "", depth * 2)
    }

    /// The rest of a line that begins with a name, and the lines below it.
    fn value(&mut self, field: &Field, value: &Value, depth: usize) -> io::Result<()> {
        match value {
            Value::Scalar(value) => writeln!(self.out, "  {}", scalar_of(field, *value)),
            Value::OddBool(byte) => writeln!(self.out, "  true ({byte:#04x})"),
            Value::Absent => writeln!(self.out, "  absent"),
            Value::Scalars(Scalars::U8(bytes))
                if matches!(field.element, Element::Value(Codec::Buffer(_))) =>
            {
                write!(self.out, "  ")?;
                self.buffer(bytes, depth)
            }
            Value::Scalars(values) => self.scalars(values, depth),
            Value::Bytes(bytes) if field.element == Element::Value(Codec::Capability) => {
                writeln!(self.out, "  {:?}", String::from_utf8_lossy(bytes))
            }
            Value::Bytes(bytes) => {
                write!(self.out, "  ")?;
                if let Element::Value(Codec::Custom { name, .. }) = &field.element
                    && !matches!(&**name, "buffer" | "unused_buffer")
                {
                    write!(self.out, "<{name}> ")?;
                }
                self.buffer(bytes, depth)
            }
            Value::Struct(state) => {
                writeln!(self.out)?;
                self.state(state, depth + 1)
            }
            Value::List(values) => self.list(field, values, depth),
            Value::Tree(nodes) => self.tree(field, nodes, depth),
            _ => writeln!(self.out, "  none"),
        }
    }

    fn buffer(&mut self, bytes: &[u8], depth: usize) -> io::Result<()> {
        if !self.all || bytes.len() <= EXCERPT {
            let excerpt = Excerpt {
                bytes,
                most: EXCERPT,
            };
            return writeln!(self.out, "{excerpt}");
        }
        writeln!(self.out, "[{} bytes]", bytes.len())?;
        for row in bytes.chunks(EXCERPT) {
            self.margin(depth + 1)?;
            let words: Vec<_> = row.iter().map(|b| format!("{b:02x}")).collect();
            writeln!(self.out, "{}", words.join(" "))?;
            self.at += row.len() as u64;
        }
        Ok(())
    }

    /// Scalars on one line, a run of equal ones as one with its length; or all of them.
    fn scalars(&mut self, values: &Scalars, depth: usize) -> io::Result<()> {
        write!(self.out, "  [{}]", values.len())?;
        if self.all && values.len() > SCALARS {
            writeln!(self.out)?;
            return self.all_scalars(values, depth);
        }
        let mut at = 0;
        for shown in 0.. {
            let Some(value) = values.get(at) else {
                break;
            };
            if shown == SCALARS {
                write!(self.out, " … {} more", values.len() - at)?;
                break;
            }
            let run = values
                .iter()
                .skip(at)
                .take_while(|v| v.to_bits() == value.to_bits())
                .count();
            let comma = if shown > 0 { "," } else { "" };
            write!(self.out, "{comma} {}", bare(value))?;
            if run > 1 {
                write!(self.out, " ×{run}")?;
            }
            at += run;
        }
        writeln!(self.out)
    }

    fn all_scalars(&mut self, values: &Scalars, depth: usize) -> io::Result<()> {
        let wide = (values.len() - 1).to_string().len();
        let size = values.get(0).map_or(1, |v| v.scalar_type().size() as u64);
        for start in (0..values.len()).step_by(8) {
            self.margin(depth + 1)?;
            let row: Vec<_> = values.iter().skip(start).take(8).map(bare).collect();
            writeln!(self.out, "[{start:wide$}] {}", row.join(" "))?;
            self.at += size * row.len() as u64;
        }
        Ok(())
    }

    fn list(&mut self, field: &Field, values: &[Value], depth: usize) -> io::Result<()> {
        let listed = u64::from(matches!(field.element, Element::List(..)));
        writeln!(self.out, "  [{}]", values.len())?;
        let mut at = 0;
        for shown in 0.. {
            let Some(value) = values.get(at) else {
                break;
            };
            if shown == STRUCTS && !self.all {
                self.margin(depth + 1)?;
                return writeln!(
                    self.out,
                    "… {} more elements (--all shows them)",
                    values.len() - at
                );
            }
            let run = if self.all {
                1
            } else {
                values.iter().skip(at).take_while(|v| *v == value).count()
            };
            self.at += listed + marker_size(field, value);
            let end = self.at + element_size(field, value) - marker_size(field, value);
            self.margin(depth + 1)?;
            match run {
                1 => write!(self.out, "[{at}]")?,
                run => write!(self.out, "[{at}..{}]", at + run - 1)?,
            }
            if run > 1 && matches!(value, Value::Struct(_)) {
                write!(self.out, "  {run} times")?;
            }
            self.value(field, value, depth + 1)?;
            let rest = element_size(field, value) + listed;
            self.at = end + rest * (run as u64 - 1);
            at += run;
        }
        Ok(())
    }

    fn tree(&mut self, field: &Field, nodes: &[(Value, Value)], depth: usize) -> io::Result<()> {
        writeln!(self.out, "  [{}]", nodes.len())?;
        self.at += 4;
        for (i, (key, value)) in nodes.iter().enumerate() {
            if i == STRUCTS && !self.all {
                self.margin(depth + 1)?;
                return writeln!(
                    self.out,
                    "… {} more nodes (--all shows them)",
                    nodes.len() - i
                );
            }
            self.at += 1;
            let end = self.at + value_size(field, key) + value_size(field, value);
            self.margin(depth + 1)?;
            match key {
                Value::Scalar(key @ Scalar::U64(_)) => write!(self.out, "key {}", scalar(*key))?,
                key => {
                    write!(self.out, "key")?;
                    self.value(field, key, depth + 1)?;
                    self.margin(depth + 1)?;
                    write!(self.out, "value")?;
                }
            }
            self.at = end - value_size(field, value);
            self.value(field, value, depth + 1)?;
            self.at = end;
        }
        Ok(())
    }
}
