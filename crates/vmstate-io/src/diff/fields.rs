//! Fields of two states.

use std::collections::HashMap;
use std::fmt::Write;

use vmstate_desc::{Codec, DynState, Element, Field, SaveState, Scalar, Scalars, Value};

use super::{Comparison, Difference, Operand, section_name};
use crate::inspect::Section;
use crate::render::Members;

/// Walks two states at once.
pub(super) struct Walk<'w, 't> {
    section: &'w Section,
    comparison: &'w mut Comparison<'t>,
    path: String,
}

impl<'w, 't> Walk<'w, 't> {
    pub(super) fn new(section: &'w Section, comparison: &'w mut Comparison<'t>) -> Self {
        Self {
            section,
            comparison,
            path: String::new(),
        }
    }

    fn tell(&mut self, a: Operand<'_>, b: Operand<'_>) {
        self.comparison.tell(&Difference::Field {
            section: self.section,
            path: &self.path,
            a,
            b,
        });
    }

    /// Goes one step further in and comes back.
    fn within(&mut self, step: impl FnOnce(&mut String), walk: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        step(&mut self.path);
        walk(self);
        self.path.truncate(length);
    }

    fn named(&mut self, name: &str, walk: impl FnOnce(&mut Self)) {
        let step = |path: &mut String| {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
        };
        self.within(step, walk);
    }

    fn indexed(&mut self, index: usize, walk: impl FnOnce(&mut Self)) {
        // Writing into a string cannot fail.
        let step = |path: &mut String| {
            let _ = write!(path, "[{index}]");
        };
        self.within(step, walk);
    }

    pub(super) fn state(&mut self, a: &DynState, b: &DynState) {
        let (left, right) = (a.description().version_id, b.description().version_id);
        if left != right {
            self.tell(Operand::Version(left), Operand::Version(right));
        }
        self.fields(a, b);
        self.subsections(a, b);
    }

    fn fields(&mut self, a: &DynState, b: &DynState) {
        let (left, right) = (Members::of(a), Members::of(b));
        let a: Vec<_> = a
            .fields()
            .enumerate()
            .map(|(i, (f, v))| (left.field(i, f), f, v))
            .collect();
        let b: Vec<_> = b
            .fields()
            .enumerate()
            .map(|(i, (f, v))| (right.field(i, f), f, v))
            .collect();
        let pairing = super::pair(&a, &b, |(name, ..)| *name);
        for ((name, field, value), partner) in a.iter().zip(&pairing.partner) {
            self.named(name, |walk| match partner.and_then(|i| b.get(i)) {
                Some((_, other_field, other)) => walk.field(field, value, other_field, other),
                None => walk.tell(Operand::Value(field, value), Operand::Missing),
            });
        }
        for (name, field, value) in pairing.left.iter().filter_map(|i| b.get(*i)) {
            self.named(name, |walk| {
                walk.tell(Operand::Missing, Operand::Value(field, value));
            });
        }
        if let Some((first, second)) = pairing.swapped {
            let path = |i: usize| {
                let name = a.get(i).map_or("", |(name, ..)| *name);
                if self.path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{}/{name}", self.path)
                }
            };
            let (first, second) = (path(first), path(second));
            self.comparison.tell(&Difference::Order {
                of: format!("{} field", section_name(self.section)),
                first,
                second,
            });
        }
    }

    fn subsections(&mut self, a: &DynState, b: &DynState) {
        let (left, right) = (Members::of(a), Members::of(b));
        let a: Vec<_> = a
            .subsections()
            .enumerate()
            .map(|(i, s)| (left.subsection(i), s))
            .collect();
        let b: Vec<_> = b
            .subsections()
            .enumerate()
            .map(|(i, s)| (right.subsection(i), s))
            .collect();
        let pairing = super::pair(&a, &b, |(name, _)| *name);
        for ((name, state), partner) in a.iter().zip(&pairing.partner) {
            self.named(name, |walk| match partner.and_then(|i| b.get(i)) {
                Some((_, other)) => walk.state(state, other),
                None => walk.tell(Operand::Subsection, Operand::Missing),
            });
        }
        for (name, _) in pairing.left.iter().filter_map(|i| b.get(*i)) {
            self.named(name, |walk| {
                walk.tell(Operand::Missing, Operand::Subsection);
            });
        }
    }

    fn field(&mut self, a: &Field, left: &Value, b: &Field, right: &Value) {
        let before = self.comparison.compared.differences;
        self.value(a, left, b, right);
        let (left, right) = (a.element.type_name(), b.element.type_name());
        if left != right && self.comparison.compared.differences == before {
            self.tell(Operand::Type(left), Operand::Type(right));
        }
    }

    fn value(&mut self, a: &Field, left: &Value, b: &Field, right: &Value) {
        match (left, right) {
            (Value::Struct(left), Value::Struct(right)) => self.state(left, right),
            (Value::List(left), Value::List(right)) => self.list(a, left, b, right),
            (Value::Tree(left), Value::Tree(right)) => self.tree(a, left, b, right),
            (Value::Scalar(x), Value::Scalar(y)) => self.scalar(a, *x, b, *y),
            (Value::Scalars(x), Value::Scalars(y)) => match (buffer(a, x), buffer(b, y)) {
                (Some(x), Some(y)) => self.bytes(x, y),
                _ => self.scalars(a, x, b, y),
            },
            (Value::Bytes(x), Value::Bytes(y)) => self.bytes(x, y),
            (left, right) if left == right => {}
            (left, right) => self.tell(Operand::Value(a, left), Operand::Value(b, right)),
        }
    }

    fn scalar(&mut self, a: &Field, x: Scalar, b: &Field, y: Scalar) {
        let same = match (x.as_i128(), y.as_i128()) {
            (Some(x), Some(y)) => x == y,
            // Bits, since not every double equals itself.
            _ => x.scalar_type() == y.scalar_type() && x.to_bits() == y.to_bits(),
        };
        if !same {
            self.tell(Operand::Scalar(a, x), Operand::Scalar(b, y));
        }
    }

    fn scalars(&mut self, a: &Field, left: &Scalars, b: &Field, right: &Scalars) {
        self.length(left.len(), right.len());
        for (i, (x, y)) in left.iter().zip(right.iter()).enumerate() {
            if x.scalar_type() != y.scalar_type() || x.to_bits() != y.to_bits() {
                self.indexed(i, |walk| walk.scalar(a, x, b, y));
            }
        }
    }

    fn length(&mut self, left: usize, right: usize) {
        if left != right {
            self.tell(Operand::Length(left), Operand::Length(right));
        }
    }

    fn bytes(&mut self, left: &[u8], right: &[u8]) {
        if left != right {
            self.tell(Operand::Bytes(left), Operand::Bytes(right));
        }
    }

    fn list(&mut self, a: &Field, left: &[Value], b: &Field, right: &[Value]) {
        self.length(left.len(), right.len());
        for (i, (x, y)) in left.iter().zip(right).enumerate() {
            self.indexed(i, |walk| walk.value(a, x, b, y));
        }
    }

    /// Nodes of trees: with integers as keys by key, else by place.
    fn tree(&mut self, a: &Field, left: &[(Value, Value)], b: &Field, right: &[(Value, Value)]) {
        self.length(left.len(), right.len());
        let (Some(mut others), Some(_)) = (direct(right), direct(left)) else {
            for (i, ((k, x), (l, y))) in left.iter().zip(right).enumerate() {
                self.indexed(i, |walk| {
                    walk.named("key", |walk| walk.value(a, k, b, l));
                    walk.named("value", |walk| walk.value(a, x, b, y));
                });
            }
            return;
        };
        for (key, x) in left {
            let Some(key) = direct_key(key) else {
                continue;
            };
            let other = others.remove(&key);
            self.named(&format!("{{{key:#x}}}"), |walk| match other {
                Some(y) => walk.value(a, x, b, y),
                None => walk.tell(Operand::Value(a, x), Operand::Missing),
            });
        }
        for (key, y) in right {
            if let Some(key) = direct_key(key)
                && others.contains_key(&key)
            {
                self.named(&format!("{{{key:#x}}}"), |walk| {
                    walk.tell(Operand::Missing, Operand::Value(b, y));
                });
            }
        }
    }
}

/// The bytes of a buffer.
fn buffer<'v>(field: &Field, values: &'v Scalars) -> Option<&'v [u8]> {
    match (&field.element, values) {
        (Element::Value(Codec::Buffer(_)), Scalars::U8(bytes)) => Some(bytes),
        _ => None,
    }
}

fn direct_key(key: &Value) -> Option<u64> {
    match key {
        Value::Scalar(Scalar::U64(key)) => Some(*key),
        _ => None,
    }
}

/// The nodes by key, if all keys are integers.
fn direct(nodes: &[(Value, Value)]) -> Option<HashMap<u64, &Value>> {
    nodes
        .iter()
        .map(|(key, value)| Some((direct_key(key)?, value)))
        .collect()
}
