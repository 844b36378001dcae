//! The values of one struct, found by the names of their fields.

use vmstate_desc::Field;

use super::input::Bits;
use super::known::Known;
use super::same::is_same;
use super::value_tag;
use crate::der::{DerReader, Tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::types::{FieldDef, Kind, TypeDef};

/// The values of a struct: read one after the other as long as both ends have the same order.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    reader: DerReader<'a>,
    /// Number of the writer's field whose value comes next; beyond all where the order differs.
    next: usize,
    /// Where the order differs: all values.
    index: Option<Box<Index<'a>>>,
    /// How many of the type's subsections must not come any more.
    subs: usize,
    /// All values have been looked at; subsections follow.
    finished: bool,
}

/// Values of fields by their numbers, and which have been taken.
type Index<'a> = Vec<(Option<Tlv<'a>>, bool)>;

impl<'a> Fields<'a> {
    #[inline]
    pub(super) const fn new(value: &Tlv<'a>) -> Self {
        Self {
            reader: value.reader(),
            next: 0,
            index: None,
            subs: 0,
            finished: false,
        }
    }

    /// Of a struct that has no value of its own.
    pub(super) const fn none(offset: u64) -> Self {
        Self {
            reader: DerReader::new(&[], offset),
            next: 0,
            index: None,
            subs: 0,
            finished: false,
        }
    }

    pub(super) const fn offset(&self) -> u64 {
        self.reader.offset()
    }

    fn value(&mut self) -> Result<Tlv<'a>, BerError> {
        match self.reader.peek() {
            None | Some(value_tag::SUB) => {
                Err(BerErrorKind::Missing("the value of a field").at(self.reader.offset()))
            }
            Some(_) => self.reader.any(),
        }
    }

    /// As [`Fields::take`] for a scalar, in the usual case: same order, same type. `false`: it is not that, and nothing has
    /// happened. Otherwise `scalar` is it.
    #[inline]
    pub(super) fn take_next(
        &mut self,
        ty: &TypeDef,
        field: &Field,
        scalar: &mut Option<Bits>,
    ) -> bool {
        match ty.fields.get(self.next) {
            Some(def) if is_same(def.name.as_bytes(), field.name.as_bytes()) => {
                self.take_known(&Known::of(def, field), scalar)
            }
            _ => false,
        }
    }

    /// As [`Fields::take_next`] for field number `index`, which is `known` to be at the same place at both ends.
    #[inline(always)]
    pub(super) fn take_aligned(
        &mut self,
        index: usize,
        known: &Known,
        scalar: &mut Option<Bits>,
    ) -> bool {
        self.next == index && self.take_known(known, scalar)
    }

    /// Takes field number `index`, which is at the same place at both ends, if `take` does, given all that is left of the values: it
    /// returns what is behind the field's. Returns where that stands; otherwise nothing has happened.
    #[inline]
    pub(super) fn take_whole(
        &mut self,
        index: usize,
        take: impl FnOnce(&'a [u8]) -> Option<&'a [u8]>,
    ) -> Option<DerReader<'a>> {
        if self.next != index {
            return None;
        }
        let value = self.reader;
        self.reader.go_on(take(value.rest())?);
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    // A value that comes back through memory is read in other pieces than it was written in, for which the processor waits.
    #[inline(always)]
    fn take_known(&mut self, known: &Known, scalar: &mut Option<Bits>) -> bool {
        let Some((bits, rest)) = known.take(self.reader.rest()) else {
            return false;
        };
        *scalar = Some(Bits {
            bits,
            offset: self.reader.offset(),
        });
        self.reader.go_on(rest);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Whether all of `count` fields have been taken, in order, and nothing follows them.
    #[inline]
    pub(super) const fn is_over(&self, count: usize) -> bool {
        self.next == count && self.reader.is_empty()
    }

    /// The value of the writer's field that is this end's `field`, with its number. `None`: the writer has no such field.
    #[inline]
    pub(super) fn take(
        &mut self,
        ty: &TypeDef,
        field: &Field,
    ) -> Result<Option<(usize, Tlv<'a>)>, BerError> {
        if let Some(mut def) = ty.fields.get(self.next) {
            // A test has no value, and nobody asks for it.
            while def.kind == Kind::Computed && self.reader.peek() == Some(tag::NULL) {
                self.value()?.null()?;
                self.next = self.next.saturating_add(1);
                match ty.fields.get(self.next) {
                    Some(next) => def = next,
                    None => return Ok(None),
                }
            }
            if !is_same(def.name.as_bytes(), field.name.as_bytes()) || def.kind == Kind::Computed {
                return self.search(ty, field);
            }
            let number = self.next;
            let value = self.value()?;
            self.next = number.saturating_add(1);
            return Ok(Some((number, value)));
        }
        self.search(ty, field)
    }

    #[cold]
    fn search(
        &mut self,
        ty: &TypeDef,
        field: &Field,
    ) -> Result<Option<(usize, Tlv<'a>)>, BerError> {
        let free = |number: usize| (!self.is_taken(number)).then_some(number);
        let by_name = ty
            .fields
            .iter()
            .enumerate()
            .filter(|(_, def)| def.name == field.name && def.kind != Kind::Computed)
            .find_map(|(number, _)| free(number));
        let by_alias = || {
            ty.fields
                .iter()
                .enumerate()
                .filter(|(_, def)| {
                    def.aliases.iter().any(|name| *name == field.name)
                        || field.aliases.iter().any(|name| *name == def.name)
                })
                .find_map(|(number, _)| free(number))
        };
        let Some(number) = by_name.or_else(by_alias) else {
            return Ok(None);
        };
        self.take_number(ty, number)
    }

    fn is_taken(&self, number: usize) -> bool {
        match &self.index {
            Some(values) => values.get(number).is_none_or(|(_, taken)| *taken),
            None => number < self.next,
        }
    }

    /// The number of the writer's field that has a value, is called so, and has not been taken.
    pub(super) fn find(&self, ty: &TypeDef, name: &str) -> Option<usize> {
        let mut numbers = ty.fields.iter().enumerate();
        let named = |(number, def): &(usize, &FieldDef)| {
            def.name == name && def.kind != Kind::Computed && !self.is_taken(*number)
        };
        numbers.find(named).map(|(number, _)| number)
    }

    /// The value of the writer's field with this number, if it has not been taken.
    pub(super) fn take_number(
        &mut self,
        ty: &TypeDef,
        number: usize,
    ) -> Result<Option<(usize, Tlv<'a>)>, BerError> {
        if self.is_taken(number) || number >= ty.fields.len() {
            return Ok(None);
        }
        if self.index.is_none() {
            let mut values = vec![(None, true); self.next];
            for _ in self.next..ty.fields.len() {
                values.push((Some(self.value()?), false));
            }
            self.index = Some(Box::new(values));
            self.next = usize::MAX;
        }
        let slot = self
            .index
            .as_mut()
            .and_then(|values| values.get_mut(number));
        Ok(slot.and_then(|(value, taken)| {
            *taken = true;
            value.map(|value| (number, value))
        }))
    }

    /// The writer's fields that nobody has taken and that have a value.
    pub(super) fn leftovers(&mut self, ty: &TypeDef) -> Result<Vec<(usize, Tlv<'a>)>, BerError> {
        if self.finished {
            return Ok(Vec::new());
        }
        self.finished = true;
        let mut left = Vec::new();
        match self.index.take() {
            Some(values) => {
                for (number, (value, taken)) in (*values).into_iter().enumerate() {
                    if let (Some(value), false) = (value, taken) {
                        left.push((number, value));
                    }
                }
            }
            None => {
                for number in self.next..ty.fields.len() {
                    left.push((number, self.value()?));
                }
            }
        }
        for (number, value) in &left {
            if value.tag == tag::NULL {
                value.null()?;
                if ty
                    .fields
                    .get(*number)
                    .is_some_and(|def| !def.may_be_absent())
                {
                    return Err(absent(value));
                }
            }
        }
        left.retain(|(_, value)| value.tag != tag::NULL);
        Ok(left)
    }

    /// The next subsection, behind all fields: number in the type, version, value.
    pub(super) fn subsection(
        &mut self,
        ty: &TypeDef,
    ) -> Result<Option<(usize, u32, Tlv<'a>)>, BerError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let whole = self.reader.expect(value_tag::SUB, "a subsection")?;
        let mut inner = whole.reader();
        let id = inner.uint32("type of a subsection")?;
        let version = inner.uint32("version of a subsection")?;
        let value = inner.expect(tag::SEQUENCE, "a struct")?;
        inner.finish()?;
        let number = ty.subs.iter().position(|sub| sub.ty == id);
        match number {
            Some(number) if number >= self.subs => {
                self.subs = number.saturating_add(1);
                Ok(Some((number, version, value)))
            }
            Some(_) => Err(BerErrorKind::NotCanonical(
                "subsections are not in the order of their owner's type",
            )
            .at(whole.offset)),
            None => Err(BerErrorKind::OutOfTurn {
                what: "a subsection whose owner's type does not have it",
            }
            .at(whole.offset)),
        }
    }

    /// Refuses whatever is left.
    pub(super) fn finish(&self) -> Result<(), BerError> {
        self.reader.finish()
    }
}

/// A value that must be there.
pub(super) fn absent(value: &Tlv<'_>) -> BerError {
    BerErrorKind::NotCanonical("a field is absent that its type always has").at(value.offset)
}
