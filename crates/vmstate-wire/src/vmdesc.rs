//! Writing the JSON trailer: the description of a stream's device sections, as each QEMU generation writes it.
//!
//! After the end-of-stream byte a stream carries a JSON text that describes each device section: names, types and sizes
//! of all fields that were sent. [`Vmdesc`] collects it while [`QemuOut`](crate::codec::QemuOut) encodes.
//!
//! The three generations differ in how they describe arrays; see [`VmdescDialect`].
//!
//! Wire: QEMU 7.2, 10.0 and 11.1, `migration/vmstate.c`; measured on recorded streams.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod array;
mod lower;
mod read;
#[cfg(test)]
mod tests;
mod texts;

use std::sync::Arc;

use vmstate_desc::{
    Codec, Description, Element, Error, Field, FieldCx, Pointers, Repeat, Role, SaveState,
};

use crate::codec::encode_described;
use crate::json::{Json, JsonWriter};
use array::{Entry, Slots};
use texts::Texts;

pub use read::{Decoded, Device, Trailer, TrailerError, decode_entry};

/// The generations of the trailer.
///
/// | | 7.2 | 10.0, 10.2 | 11.1 |
/// |---|---|---|---|
/// | `configuration` at the top | no | yes | yes |
/// | uncompressed array of n | `index` 0 … n-1 | the last has no `index` | no `index` |
/// | absent pointer | described as if present, size 1 | `nullptr` | `ptr-marker` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum VmdescDialect {
    /// QEMU 7.2 (until 8.1).
    V7_2,
    /// QEMU 10.0 and 10.2.
    V10_0,
    /// QEMU 11.1.
    V11_1,
}

impl VmdescDialect {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V7_2, Self::V10_0, Self::V11_1];

    /// The type name of an absent pointer's entry.
    #[must_use]
    pub const fn marker_type(self) -> &'static str {
        match self {
            Self::V7_2 | Self::V10_0 => "nullptr",
            Self::V11_1 => "ptr-marker",
        }
    }
}

/// Collects the trailer of one stream.
///
/// ```
/// use vmstate_desc::{Codec, Description, DynState, Field, Scalar};
/// use vmstate_wire::vmdesc::{Vmdesc, VmdescDialect};
/// static RTC: Description =
///     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
/// let mut rtc = DynState::new(&RTC);
/// rtc.set("year", Scalar::U16(2026));
///
/// let mut vmdesc = Vmdesc::new(VmdescDialect::V7_2, 4096);
/// let mut payload = Vec::new();
/// vmdesc.device("rtc", 0, &rtc, &mut payload)?;
/// assert_eq!(
///     vmdesc.finish(),
///     r#"{"page_size": 4096, "devices": [{"name": "rtc", "instance_id": 0, "vmsd_name": "rtc", "version": 1, "fields": [{"name": "year", "type": "uint16", "size": 2}]}]}"#
/// );
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
#[derive(Debug)]
pub struct Vmdesc {
    dialect: VmdescDialect,
    page_size: u32,
    /// Text of the configuration's description, if one was given.
    configuration: Option<String>,
    /// The devices' objects, separated.
    text: String,
    frames: Vec<Frame>,
    fields: Vec<FieldFrame>,
    /// Above 0: inside something that the trailer does not describe.
    off: u32,
    /// A plain description whose text is to be kept when it is complete.
    pending: Option<Arc<Texts>>,
}

/// Bytes that a trailer is expected to take at first: a device of a hundred fields has some 6 KiB.
const CAPACITY: usize = 8 << 10;

/// An open description.
#[derive(Debug, Default)]
struct Frame {
    any_field: bool,
    in_subsections: bool,
    texts: Option<Arc<Texts>>,
    /// Where the text of a plain description begins, which is to be kept.
    keep: Option<usize>,
}

/// An open field.
#[derive(Debug)]
enum FieldFrame {
    /// One entry, written as it goes: byte offset, and where its text begins.
    Single { offset: usize, start: usize },
    /// Elements whose entries are written at the end, when all are known.
    Array(Slots),
    /// Not described, or described already.
    Off,
}

impl Vmdesc {
    /// An empty trailer. `page_size` is the target page size in bytes.
    #[must_use]
    pub fn new(dialect: VmdescDialect, page_size: u32) -> Self {
        Self {
            dialect,
            page_size,
            configuration: None,
            text: String::with_capacity(CAPACITY),
            frames: Vec::new(),
            fields: Vec::new(),
            off: 0,
            pending: None,
        }
    }

    /// The dialect.
    #[must_use]
    pub const fn dialect(&self) -> VmdescDialect {
        self.dialect
    }

    /// Encodes `state`, appends the payload to `out` and the device's entry to the trailer.
    ///
    /// # Errors
    /// What the device refuses; the trailer must then be given up.
    pub fn device(
        &mut self,
        idstr: &str,
        instance_id: u32,
        state: &dyn SaveState,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.separate();
        self.text.push_str("{\"name\": ");
        string(&mut self.text, idstr);
        self.text.push_str(", \"instance_id\": ");
        number(&mut self.text, instance_id.into());
        self.text.push_str(", ");
        encode_described(state, out, self).map_err(|e| e.in_section(idstr))?;
        self.text.push('}');
        Ok(())
    }

    /// As [`Vmdesc::device`], for a device that another trailer describes already: if describing `state` gives another text than
    /// `entry`, that is carried over. Returns whether the texts were equal.
    ///
    /// # Errors
    /// As [`Vmdesc::device`].
    pub fn device_as(
        &mut self,
        idstr: &str,
        instance_id: u32,
        state: &dyn SaveState,
        out: &mut Vec<u8>,
        entry: &Json<'_>,
    ) -> Result<bool, Error> {
        let start = self.text.len();
        self.device(idstr, instance_id, state, out)?;
        let expected = entry.to_text();
        let equal = self.text.ends_with(&expected);
        if !equal {
            self.text.truncate(start);
            self.carried_device(&expected);
        }
        Ok(equal)
    }

    /// Adds the entry of an old-style device: `size` bytes without a description.
    pub fn opaque_device(&mut self, idstr: &str, instance_id: u32, size: u64) {
        self.separate();
        self.text.push_str("{\"name\": ");
        string(&mut self.text, idstr);
        self.text.push_str(", \"instance_id\": ");
        number(&mut self.text, instance_id.into());
        self.text.push_str(", \"size\": ");
        number(&mut self.text, size);
        self.text
            .push_str(", \"fields\": [{\"name\": \"data\", \"size\": ");
        number(&mut self.text, size);
        self.text.push_str(", \"type\": \"buffer\"}]}");
    }

    /// Adds a device's entry that was carried as text, for instance from another trailer.
    pub fn carried_device(&mut self, entry: &str) {
        self.separate();
        self.text.push_str(entry);
    }

    /// Encodes the configuration section's body and describes it, where the dialect has a place for it.
    ///
    /// # Errors
    /// What the state refuses.
    pub fn configuration(&mut self, state: &dyn SaveState, out: &mut Vec<u8>) -> Result<(), Error> {
        let devices = std::mem::take(&mut self.text);
        let result = encode_described(state, out, self);
        let text = std::mem::replace(&mut self.text, devices);
        self.configuration = Some(text);
        result
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        let mut out = String::with_capacity(self.text.len().saturating_add(64));
        out.push('{');
        if let (VmdescDialect::V10_0 | VmdescDialect::V11_1, Some(text)) =
            (self.dialect, &self.configuration)
        {
            out.push_str("\"configuration\": {");
            out.push_str(text);
            out.push_str("}, ");
        }
        out.push_str("\"page_size\": ");
        number(&mut out, self.page_size.into());
        out.push_str(", \"devices\": [");
        out.push_str(&self.text);
        out.push_str("]}");
        out
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str(", ");
        }
    }

    pub(crate) fn begin(&mut self, d: &Description, version: u32, role: Role<'_>, offset: usize) {
        let plain = self.pending.take();
        if self.off > 0 || !self.open_role(role, offset) {
            self.off = self.off.saturating_add(1);
            return;
        }
        let keep = plain.is_some().then_some(self.text.len());
        let texts = plain.or_else(|| Texts::of(d, self.dialect));
        self.text.push_str("\"vmsd_name\": ");
        string(&mut self.text, &d.name);
        self.text.push_str(", \"version\": ");
        number(&mut self.text, version.into());
        self.text.push_str(", \"fields\": [");
        self.frames.push(Frame {
            texts,
            keep,
            ..Frame::default()
        });
    }

    pub(crate) fn end(&mut self, _d: &Description, role: Role<'_>, offset: usize) {
        if self.off > 0 {
            self.off = self.off.saturating_sub(1);
            return;
        }
        let Some(frame) = self.frames.pop() else {
            return;
        };
        self.text.push(']');
        if let (Some(texts), Some(start)) = (frame.texts, frame.keep) {
            texts.set_whole(self.text.get(start..).unwrap_or_default());
        }
        self.close_role(role, offset);
    }

    /// A description that is encoded as a whole. `false`: its text is not known yet, walk it.
    pub(crate) fn plain(
        &mut self,
        d: &Description,
        role: Role<'_>,
        offset: usize,
        size: usize,
    ) -> bool {
        if self.off > 0 {
            return true;
        }
        let Some(texts) = Texts::of(d, self.dialect) else {
            return false;
        };
        let Some(text) = texts.whole() else {
            if !matches!(role, Role::Custom) {
                self.pending = Some(texts);
            }
            return false;
        };
        if !self.open_role(role, offset) {
            return true;
        }
        self.text.push_str(text);
        self.close_role(role, offset.saturating_add(size));
        true
    }

    /// Opens what encloses a description. `false` if it is not to be described.
    fn open_role(&mut self, role: Role<'_>, offset: usize) -> bool {
        match role {
            Role::Top => true,
            Role::Subsection => {
                if let Some(frame) = self.frames.last_mut() {
                    if frame.in_subsections {
                        self.text.push_str(", {");
                    } else {
                        frame.in_subsections = true;
                        self.text.push_str("], \"subsections\": [{");
                    }
                }
                true
            }
            Role::Element { cx, index } => self.open_element(cx, index, offset),
            // The case that is there stands in the field's place.
            Role::Case { cx, .. } => self.open_element(cx, 0, offset),
            Role::Key { .. } => {
                self.text.push_str(", ");
                true
            }
            _ => false,
        }
    }

    fn open_element(&mut self, cx: FieldCx<'_>, index: usize, offset: usize) -> bool {
        match self.fields.last_mut() {
            Some(FieldFrame::Single { .. }) => {}
            Some(FieldFrame::Array(slots)) => {
                if !slots.begin(index, true, offset, self.text.len()) {
                    return false;
                }
                self.text.push_str("\"type\": ");
                string(&mut self.text, cx.field.element.type_name());
            }
            Some(FieldFrame::Off) | None => return false,
        }
        self.text.push_str(match cx.field.element {
            Element::Struct(_) | Element::Variant(_) => ", \"struct\": {",
            // All others go into the field's own object.
            _ => ", ",
        });
        true
    }

    fn close_role(&mut self, role: Role<'_>, offset: usize) {
        match role {
            Role::Subsection => self.text.push('}'),
            Role::Element { cx, .. } | Role::Case { cx, .. } => {
                if let Element::Struct(_) | Element::Variant(_) = cx.field.element {
                    self.text.push('}');
                }
                if let Some(FieldFrame::Array(slots)) = self.fields.last_mut() {
                    slots.end(offset, &mut self.text);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn field(&mut self, cx: FieldCx<'_>, offset: usize) {
        if self.off > 0 {
            self.fields.push(FieldFrame::Off);
            return;
        }
        if self.known_field(cx) {
            self.fields.push(FieldFrame::Off);
            return;
        }
        let single = cx.field.repeat == Repeat::Single;
        let frame = if single {
            let start = self.text.len();
            self.open_entry(cx);
            self.text.push_str(", \"type\": ");
            string(&mut self.text, cx.field.element.type_name());
            FieldFrame::Single { offset, start }
        } else {
            FieldFrame::Array(Slots::new(
                cx.count,
                is_compressible(cx.field),
                offset,
                cx.field.pointers,
                self.dialect,
            ))
        };
        self.fields.push(frame);
    }

    pub(crate) fn slot(&mut self, cx: FieldCx<'_>, index: usize, present: bool) {
        if self.off > 0 {
            return;
        }
        let Some(FieldFrame::Array(slots)) = self.fields.last_mut() else {
            return;
        };
        let structs = matches!(
            cx.field.element,
            Element::Struct(_) | Element::VersionedStruct(..)
        );
        // A present struct is described when it is walked, a present scalar right here.
        if !present {
            slots.absent(index);
        } else if !structs {
            slots.scalar(index, element_size(cx.field));
        }
    }

    /// Bytes of an element without a fixed size have been written, up to `offset`.
    pub(crate) fn measured(&mut self, offset: usize) {
        if let Some(FieldFrame::Array(slots)) = self.fields.last_mut() {
            slots.measured(offset);
        }
    }

    pub(crate) fn end_field(&mut self, cx: FieldCx<'_>, offset: usize) {
        match self.fields.pop() {
            Some(FieldFrame::Single {
                offset: from,
                start,
            }) => {
                self.text.push_str(", \"size\": ");
                number(&mut self.text, offset.saturating_sub(from) as u64);
                self.text.push('}');
                self.keep_field(cx, start);
            }
            Some(FieldFrame::Array(slots)) => {
                let start = self.text.len();
                let entries = slots.entries(offset, cx.field, self.dialect);
                for entry in entries {
                    self.write_entry(cx, &entry);
                }
                self.keep_field(cx, start);
            }
            Some(FieldFrame::Off) | None => {}
        }
    }

    /// Writes a field's entries if they are constant and known.
    fn known_field(&mut self, cx: FieldCx<'_>) -> bool {
        if !texts::is_constant(cx.field) {
            return false;
        }
        let Some(frame) = self.frames.last_mut() else {
            return false;
        };
        let Some(text) = frame.texts.as_ref().and_then(|t| t.field(cx.index)) else {
            return false;
        };
        if !text.is_empty() {
            if frame.any_field {
                self.text.push_str(", ");
            }
            frame.any_field = true;
            self.text.push_str(text);
        }
        true
    }

    /// Keeps a field's entries, whose text begins at `start`, if they are constant.
    fn keep_field(&self, cx: FieldCx<'_>, start: usize) {
        if texts::is_constant(cx.field)
            && let Some(texts) = self.frames.last().and_then(|f| f.texts.as_ref())
        {
            let text = self.text.get(start..).unwrap_or_default();
            texts.set_field(cx.index, text.strip_prefix(", ").unwrap_or(text));
        }
    }

    fn write_entry(&mut self, cx: FieldCx<'_>, entry: &Entry) {
        if entry.is_marker && self.dialect != VmdescDialect::V7_2 {
            self.open_named(cx, has_namesake(cx).then_some(-1));
        } else {
            self.open_entry(cx);
        }
        if let Some(len) = entry.array_len {
            self.text.push_str(", \"array_len\": ");
            number(&mut self.text, len as u64);
        }
        if let Some(index) = entry.index {
            self.text.push_str(", \"index\": ");
            number(&mut self.text, index as u64);
        }
        self.text.push_str(", ");
        match &entry.text {
            Some(text) => self.text.push_str(text),
            None => {
                self.text.push_str("\"type\": ");
                string(&mut self.text, cx.field.element.type_name());
            }
        }
        self.text.push_str(", \"size\": ");
        number(&mut self.text, entry.size as u64);
        self.text.push('}');
    }

    fn open_entry(&mut self, cx: FieldCx<'_>) {
        let number = has_namesake(cx).then(|| {
            let before = cx.description.fields().get(..cx.index).unwrap_or_default();
            let same = before.iter().filter(|f| f.name == cx.field.name).count();
            i64::try_from(same).unwrap_or(i64::MAX)
        });
        self.open_named(cx, number);
    }

    fn open_named(&mut self, cx: FieldCx<'_>, suffix: Option<i64>) {
        if let Some(frame) = self.frames.last_mut() {
            if frame.any_field {
                self.text.push_str(", ");
            }
            frame.any_field = true;
        }
        self.text.push_str("{\"name\": ");
        match suffix {
            Some(k) => string(&mut self.text, &format!("{}[{k}]", cx.field.name)),
            None => string(&mut self.text, &cx.field.name),
        }
    }
}

/// Whether elements of an array of this field share one entry: QEMU's rule, on the description alone.
fn is_compressible(field: &Field) -> bool {
    if field.has_predicate() || field.pointers == Pointers::MarkEvery {
        return false;
    }
    match &field.element {
        Element::Struct(child) => {
            child.subsections().is_empty() && child.fields().iter().all(is_compressible)
        }
        // One element may have another case than the next.
        Element::Variant(_) => false,
        _ => true,
    }
}

fn has_namesake(cx: FieldCx<'_>) -> bool {
    cx.description
        .fields()
        .iter()
        .enumerate()
        .any(|(i, f)| i != cx.index && f.name == cx.field.name)
}

/// Bytes of one element of a field without a description.
fn element_size(field: &Field) -> usize {
    match &field.element {
        Element::Value(Codec::Unused(size)) => *size as usize,
        Element::Value(Codec::Custom {
            size: Some(size), ..
        }) => *size as usize,
        Element::Value(codec) => codec
            .scalar_type()
            .map_or(0, vmstate_desc::ScalarType::size),
        _ => 0,
    }
}

fn string(out: &mut String, text: &str) {
    let plain = text
        .bytes()
        .all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut writer = JsonWriter::new();
    writer.string(text);
    out.push_str(&writer.into_string());
}

fn number(out: &mut String, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut used = 0_usize;
    for slot in digits.iter_mut().rev() {
        *slot = b'0'.saturating_add(u8::try_from(value % 10).unwrap_or(0));
        value /= 10;
        used = used.saturating_add(1);
        if value == 0 {
            break;
        }
    }
    let start = digits.len().saturating_sub(used);
    let text = digits.get(start..).unwrap_or_default();
    out.push_str(std::str::from_utf8(text).unwrap_or("0"));
}
