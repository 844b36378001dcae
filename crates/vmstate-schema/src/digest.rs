//! Digests of types: equal ones stand for equal definitions, whichever schema they are in.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::document::type_json;
use crate::model::{Element, Schema, Type, TypeId};

/// What a type and all that it embeds say, as SHA-256: of the type's object as it stands in a schema document, without the numbers
/// of other types, and of their digests.
///
/// It is not the digest in catalogs of VM state over BER, which is of what travels: this one has the order of sections, too, and
/// what a dump says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The first eight octets as hexadecimal digits, which do for people.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Members of a field that are numbers of types, and of a subsection.
const NUMBERS: [&str; 3] = ["type", "key_type", "variants"];

/// The digests of all types of a schema, by number. Types refer to earlier ones only.
pub(crate) fn digests(schema: &Schema) -> Vec<Digest> {
    let mut known: Vec<Digest> = Vec::with_capacity(schema.types().len());
    for ty in schema.types() {
        let mut hash = Sha256::new();
        hash.update(without_numbers(type_json(ty)).to_string());
        for id in reached(ty) {
            // A number that is not there, which `add_type` refuses, stands for nothing.
            if let Some(digest) = known.get(id.index()) {
                hash.update(digest.0);
            }
        }
        known.push(Digest(hash.finalize().into()));
    }
    known
}

/// The object of a type without the numbers that other types have in its schema.
fn without_numbers(mut ty: Value) -> Value {
    for list in ["fields", "subsections"] {
        let items = ty.get_mut(list).and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            let cases = item.get_mut("cases").and_then(Value::as_array_mut);
            for case in cases.into_iter().flatten() {
                if let Some(number) = case.get_mut("type") {
                    *number = Value::Null;
                }
            }
            for member in NUMBERS {
                // That there is one is a part of what the field is.
                if let Some(number) = item.get_mut(member) {
                    *number = match number {
                        Value::Array(numbers) => numbers.len().into(),
                        _ => Value::Null,
                    };
                }
            }
        }
    }
    ty
}

/// The types that a type names, in order.
fn reached(ty: &Type) -> impl Iterator<Item = TypeId> + '_ {
    let fields = ty.fields.iter().flat_map(|field| {
        let key = match field.element {
            Element::Tree {
                key: crate::model::Key::Struct(key),
                ..
            } => Some(key),
            _ => None,
        };
        let child = field.element.child();
        let cases = field.element.cases().iter().map(|case| case.ty);
        key.into_iter()
            .chain(child)
            .chain(cases)
            .chain(field.variants.iter().copied())
    });
    fields.chain(ty.subsections.iter().map(|sub| sub.ty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Field, Origin};
    use vmstate_desc::Codec;

    /// A type that embeds another one, behind `before` types that have nothing to do with it.
    fn outer(before: u32, codec: Codec) -> (Digest, Digest) {
        let mut schema = Schema::new(Origin::Descriptions, None);
        for n in 0..before {
            schema.add_type(Type::new(format!("other{n}"), 1, 1));
        }
        let mut inner = Type::new("inner", 1, 1);
        inner.fields = vec![Field::new("x", Element::Value(codec))];
        let inner = schema.add_type(inner).unwrap();
        let mut outer = Type::new("outer", 1, 1);
        outer.fields = vec![Field::new("a", Element::Struct(inner))];
        let outer = schema.add_type(outer).unwrap();
        let digests = digests(&schema);
        (digests[inner.index()], digests[outer.index()])
    }

    #[test]
    fn a_digest_is_of_what_a_type_says_and_not_of_its_number() {
        let known = outer(0, Codec::Uint32);
        assert_eq!(outer(3, Codec::Uint32), known);
        let (inner, whole) = outer(0, Codec::Uint16);
        assert_ne!(inner, known.0);
        assert_ne!(whole, known.1, "what is embedded counts");
        assert_ne!(known.0, known.1);
    }

    #[test]
    fn a_digest_is_shown_by_its_first_octets() {
        let digest = Digest(std::array::from_fn(|n| u8::try_from(n).unwrap()));
        assert_eq!(digest.to_string(), "0001020304050607");
        assert_eq!(digest.as_bytes()[31], 31);
    }
}
