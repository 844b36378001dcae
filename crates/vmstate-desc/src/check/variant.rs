//! Rules of variants.

use crate::codec::{Codec, ScalarType};
use crate::description::Description;
use crate::field::{Element, Field, Pointers, Repeat};
use crate::variants::{MAX_CASES, Variants};

use super::{Rule, cow_str, field_name, same};

impl Description {
    /// What is wrong with field number `index`, which is this variant.
    pub(super) const fn variant_fault(&self, index: usize, variants: &Variants) -> Option<Rule> {
        let name = cow_str(&variants.field);
        let fields = self.fields();
        let mut i = 0;
        while i < index {
            let discriminant = &fields[i];
            if same(field_name(discriminant), name) {
                let Some(ty) = discriminant_type(discriminant) else {
                    return Some(Rule::Discriminant);
                };
                if !self.is_there_with(discriminant, &fields[index]) {
                    return Some(Rule::DiscriminantAbsent);
                }
                return cases_fault(variants, ty);
            }
            i += 1;
        }
        Some(Rule::Discriminant)
    }

    /// Whether the discriminant is there in every version in which the variant can be.
    const fn is_there_with(&self, discriminant: &Field, variant: &Field) -> bool {
        if discriminant.conditional {
            return false;
        }
        let behind = self.version_id.saturating_add(1);
        let (mut first, mut end) = (self.minimum_version_id, behind);
        if !variant.conditional {
            if variant.version_id > first {
                first = variant.version_id;
            }
            if let Some(until) = variant.until
                && until < end
            {
                end = until;
            }
        }
        let starts = discriminant.version_id <= first;
        match discriminant.until {
            Some(until) => starts && until >= end,
            None => starts,
        }
    }
}

const fn discriminant_type(field: &Field) -> Option<ScalarType> {
    let Element::Value(codec) = &field.element else {
        return None;
    };
    // A validator has no value.
    if field.must_exist
        || !matches!(field.repeat, Repeat::Single)
        || !matches!(field.pointers, Pointers::No)
        || matches!(codec, Codec::Timer)
    {
        return None;
    }
    match codec.scalar_type() {
        Some(ScalarType::Bool | ScalarType::F64) => None,
        ty => ty,
    }
}

const fn cases_fault(variants: &Variants, ty: ScalarType) -> Option<Rule> {
    let (least, greatest) = match ty {
        ScalarType::U8 => (0, u8::MAX as i64),
        ScalarType::U16 => (0, u16::MAX as i64),
        ScalarType::U32 => (0, u32::MAX as i64),
        // All that is greater counts as the greatest number.
        ScalarType::U64 => (0, i64::MAX - 1),
        ScalarType::I8 => (i8::MIN as i64, i8::MAX as i64),
        ScalarType::I16 => (i16::MIN as i64, i16::MAX as i64),
        ScalarType::I32 => (i32::MIN as i64, i32::MAX as i64),
        _ => (i64::MIN, i64::MAX - 1),
    };
    let cases = variants.cases();
    if cases.is_empty() || cases.len() > MAX_CASES {
        return Some(Rule::Cases);
    }
    let mut i = 0;
    while i < cases.len() {
        let value = cases[i].value;
        if value < least || value > greatest || (i > 0 && value <= cases[i - 1].value) {
            return Some(Rule::Cases);
        }
        i += 1;
    }
    None
}
