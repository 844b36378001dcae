//! The case of a variant.

use vmstate_desc::{Error, ErrorKind};

use super::BerIn;
use super::open::{OpenField, Source};
use crate::error::{BerError, BerErrorKind};

impl<'a> BerIn<'a> {
    /// The struct that stands for a variant whose discriminant has this value: the one that the writer's table names for it.
    pub(super) fn case(&self, discriminant: i64) -> Result<Source<'a>, BerError> {
        let Some(OpenField::Struct(value, def)) = self.fields.last() else {
            return Err(BerErrorKind::Missing("a case").at(self.here()));
        };
        let (index, version, body) = self.typed(value, None)?;
        let Some(ty) = self.types.get(index) else {
            return Err(BerErrorKind::UnknownType { id: 0 }.at(value.offset));
        };
        let variants = def.variants.as_ref();
        let named = variants.and_then(|variants| variants.case(discriminant));
        if named != Some(ty.id) {
            let expected = named.and_then(|id| self.types.get(self.types.find(id)?));
            let error = Error::new(ErrorKind::WrongCase {
                discriminant: variants.map_or_else(String::new, |v| v.field.clone()),
                value: discriminant,
                expected: expected.map_or_else(|| "no case".to_owned(), |ty| ty.name.clone()),
                found: ty.name.clone(),
            });
            let error = error.at_offset(value.offset);
            return Err(BerErrorKind::State(error).at(value.offset));
        }
        if version != ty.version {
            let what = "a case has another version than its type";
            return Err(BerErrorKind::NotCanonical(what).at(value.offset));
        }
        Ok((index, version, body))
    }
}
