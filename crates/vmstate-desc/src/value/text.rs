//! Strings.

use std::borrow::Cow;

use super::FieldValue;
use crate::codec::Codec;
use crate::error::{Error, Reason};
use crate::field::Element;
use crate::state::{LoadField, SaveField};
use crate::support::access::load_bytes;

/// Most bytes of a string that no attribute bounds.
pub const STRING_MAX: u32 = 65_535;

fn load(source: &mut dyn LoadField) -> Result<String, Error> {
    let mut bytes = Vec::new();
    load_bytes(&mut bytes, source)?;
    String::from_utf8(bytes).map_err(|e| source.refuse_field("utf-8", Reason::new(e.to_string())))
}

/// UTF-8 of at most [`STRING_MAX`] bytes, or as many as the field's `byte_array, max = …` says.
///
/// Wire: be32 length, bytes; as `GByteArray` of QEMU 11.1.
impl FieldValue for String {
    const ELEMENT: Element = Element::Value(Codec::ByteArray { max: STRING_MAX });

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.raw(self.as_bytes())
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        *self = load(source)?;
        Ok(())
    }
}

/// As `String`.
impl FieldValue for Cow<'static, str> {
    const ELEMENT: Element = String::ELEMENT;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.raw(self.as_bytes())
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        *self = Cow::Owned(load(source)?);
        Ok(())
    }
}
