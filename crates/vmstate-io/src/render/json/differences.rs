//! Differences of two streams.

use std::io::{self, Write};

use super::{scalar, value};
use crate::diff::{Compared, Difference, Operand, Side};
use crate::inspect::Section;
use crate::render::JsonOut;

/// Name and version of the JSON of a comparison.
pub const DIFF_FORMAT: &str = "vmstate-diff/1";

/// Writes differences as they are found.
#[derive(Debug)]
pub struct Differences<W: Write> {
    out: JsonOut<W>,
}

impl<W: Write> Differences<W> {
    /// A writer to `out`, for streams with these names.
    pub fn new(out: W, a: &str, b: &str) -> Self {
        let mut out = JsonOut::new(out);
        out.open_object();
        out.line();
        out.text("format", DIFF_FORMAT);
        out.line();
        out.text("a", a);
        out.line();
        out.text("b", b);
        out.line();
        out.key("differences");
        out.open_array();
        Self { out }
    }

    /// Writes an object.
    pub fn tell(&mut self, difference: &Difference<'_>) {
        let out = &mut self.out;
        out.line();
        out.open_object();
        match difference {
            Difference::Machine { what, a, b } => {
                out.text("kind", what);
                optional("a", a.as_deref(), out);
                optional("b", b.as_deref(), out);
            }
            Difference::Capability { only_in, name } => {
                out.text("kind", "capability");
                out.text("name", name);
                out.text("only_in", side(*only_in));
            }
            Difference::Section { only_in, section } => {
                out.text("kind", "section");
                owner(section, out);
                out.text("only_in", side(*only_in));
            }
            Difference::Header {
                section,
                what,
                a,
                b,
            } => {
                out.text("kind", "header");
                owner(section, out);
                out.text("member", what);
                header_value("a", a, out);
                header_value("b", b, out);
            }
            Difference::Field {
                section,
                path,
                a,
                b,
            } => {
                out.text("kind", field_kind(a, b));
                owner(section, out);
                out.text("path", path);
                operand("a", a, out);
                operand("b", b, out);
            }
            Difference::Order { of, first, second } => {
                out.text("kind", "order");
                out.text("of", of);
                out.text("first", first);
                out.text("second", second);
            }
            Difference::Block { only_in, block } => {
                out.text("kind", "block");
                out.text("idstr", &block.name.to_string());
                out.text("only_in", side(*only_in));
            }
            Difference::BlockShape { block, what, a, b } => {
                out.text("kind", "block_shape");
                out.text("idstr", &block.name.to_string());
                out.text("member", what);
                out.key("a");
                out.optional(*a);
                out.key("b");
                out.optional(*b);
            }
            Difference::BlockContent { a, b } => {
                out.text("kind", "block_content");
                out.text("idstr", &a.name.to_string());
                for (key, block) in [("a", a), ("b", b)] {
                    out.key(key);
                    out.hex(
                        block
                            .sha256
                            .as_ref()
                            .map(<[u8; 32]>::as_slice)
                            .unwrap_or_default(),
                    );
                }
            }
        }
        out.close_object();
    }

    /// Ends the text. `errors` are those of the two streams, if they could not be read to their ends.
    ///
    /// # Errors
    /// The first error of the output.
    pub fn finish(mut self, compared: &Compared, errors: [Option<&str>; 2]) -> io::Result<()> {
        let out = &mut self.out;
        out.line();
        out.close_array();
        out.line();
        out.key("compared");
        out.open_object();
        out.number("sections", compared.sections);
        out.number("blocks", compared.blocks);
        out.number("contents", compared.contents);
        out.close_object();
        out.line();
        out.key("identical");
        out.boolean(compared.differences == 0 && errors == [None, None]);
        out.line();
        out.key("errors");
        out.open_object();
        for (key, error) in ["a", "b"].into_iter().zip(errors) {
            optional(key, error, out);
        }
        out.close_object();
        out.line();
        out.close_object();
        self.out.finish()
    }
}

const fn side(side: Side) -> &'static str {
    match side {
        Side::A => "a",
        Side::B => "b",
    }
}

fn optional(key: &str, text: Option<&str>, out: &mut JsonOut<impl Write>) {
    out.key(key);
    match text {
        Some(text) => out.string(text),
        None => out.null(),
    }
}

fn owner(section: &Section, out: &mut JsonOut<impl Write>) {
    out.text("idstr", &section.idstr);
    out.number("instance_id", section.instance_id.into());
}

/// Versions are numbers, kinds are words.
fn header_value(key: &str, text: &str, out: &mut JsonOut<impl Write>) {
    out.key(key);
    match text.parse() {
        Ok(number) => out.unsigned(number),
        Err(_) => out.string(text),
    }
}

const fn field_kind(a: &Operand<'_>, b: &Operand<'_>) -> &'static str {
    match (a, b) {
        (Operand::Length(_), _) => "length",
        (Operand::Type(_), _) => "type",
        (Operand::Version(_), _) => "version",
        (Operand::Missing, _) | (_, Operand::Missing) => "missing",
        (Operand::Chunks(_), _) => "bitmaps",
        _ => "field",
    }
}

/// A value as in an inspection; nothing for what is missing.
fn operand(key: &str, operand: &Operand<'_>, out: &mut JsonOut<impl Write>) {
    if let Operand::Missing = operand {
        return;
    }
    out.key(key);
    match operand {
        Operand::Value(field, of) => value(field, of, out),
        Operand::Scalar(_, of) => scalar(*of, out),
        Operand::Length(n) | Operand::Chunks(n) => out.unsigned(*n as u64),
        Operand::Type(name) => out.string(name),
        Operand::Version(version) => out.unsigned((*version).into()),
        Operand::Bytes(bytes) => out.hex(bytes),
        Operand::Subsection | Operand::Missing => out.boolean(true),
    }
}
