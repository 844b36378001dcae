//! Numbers of elements that a device has from its configuration, told before anything is saved.

use crate::alias::alias_path;
use crate::codec::Scalar;
use crate::description::{Description, DescriptionRef};
use crate::error::Error;
use crate::field::{Count, CountSource, Element, Field, Pointers, Repeat};
use crate::limits::MAX_DEPTH;
use crate::slice::Slice;
use crate::state::{SaveField, SaveState};

/// Most numbers that [`own_counts`] tells of one device.
pub const MAX_OWN_COUNTS: usize = 256;

/// How many elements a field has by the configuration of its device: a number that the stream does not say, so that both ends must
/// have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCount {
    /// Names of the structures that embed the field, from the outside in, and the field's: with dots between them.
    pub path: String,
    /// Paths that it had before.
    pub aliases: Vec<String>,
    /// Name of the number, for people: the device's, such as `queues`.
    pub counter: String,
    /// Elements of an array, bytes of a buffer, bits of a bitmap: after multiplication, not above the field's bound.
    pub number: u32,
    /// Most elements, bytes or bits that the device takes where a stream tells how many there are.
    pub resize_max: Option<u32>,
}

/// The numbers of elements that `state` has from its configuration: of its fields, and of those of structures that it embeds and
/// subsections that would be sent now. At most [`MAX_OWN_COUNTS`]; where two fields have the same path, neither.
///
/// Runs no hook, and looks into nothing but what embeds such a field: it may be asked while the guest runs. Elements of arrays, lists and trees
/// are not looked into, for what they are may depend on what the guest does.
///
/// ```
/// use vmstate_desc::{Codec, Count, Description, Error, Field, Repeat, SaveField, SaveState, Slice, own_counts};
///
/// static NIC: Description = Description::new("nic", 1, 1).with_fields(const {
///     &[Field::value("tails", Codec::Uint16).repeat(Repeat::Counted(Count::of_device("queues", 16)))]
/// });
/// struct Nic { queues: u8 }
/// impl SaveState for Nic {
///     fn description(&self) -> vmstate_desc::DescriptionRef { (&NIC).into() }
///     fn save_field(&self, _: usize, sink: &mut dyn SaveField) -> Result<(), Error> {
///         sink.scalars(Slice::U16(&vec![0; self.queues.into()]))
///     }
///     fn count(&self, _: usize) -> Option<i64> { Some(self.queues.into()) }
///     fn is_configured(&self, _: usize) -> bool { true }
/// }
/// let told = own_counts(&Nic { queues: 4 });
/// assert_eq!((told[0].path.as_str(), told[0].counter.as_str(), told[0].number), ("tails", "queues", 4));
/// ```
#[must_use]
pub fn own_counts(state: &dyn SaveState) -> Vec<OwnCount> {
    let mut walk = Walk {
        found: Vec::new(),
        path: Vec::new(),
    };
    walk.state(state);
    let mut found = walk.found;
    let paths: Vec<_> = found.iter().map(|one| one.path.clone()).collect();
    let unique = |one: &OwnCount| paths.iter().filter(|path| **path == one.path).count() == 1;
    found.retain(unique);
    found
}

struct Walk {
    found: Vec<OwnCount>,
    /// Names of the structures around.
    path: Vec<String>,
}

impl Walk {
    /// A section, a subsection or an embedded structure.
    fn state(&mut self, state: &dyn SaveState) {
        self.fields(state);
        let description = state.description();
        for (index, subsection) in description.subsections().iter().enumerate() {
            if !self.may_tell(subsection) {
                continue;
            }
            self.path.push(subsection.name.to_string());
            // What cannot be lent now says nothing.
            _ = state.save_subsection(index, &mut |part| {
                if part.needed() {
                    self.state(part);
                }
                Ok(())
            });
            self.path.pop();
        }
    }

    fn fields(&mut self, state: &dyn SaveState) {
        let description = state.description();
        let version = description.version_id;
        for (index, field) in description.fields().iter().enumerate() {
            let exists = match field.conditional {
                true => state.exists(index, version),
                false => field.exists_at(version),
            };
            if !exists {
                continue;
            }
            if let Some(count) = field.count() {
                if state.is_configured(index) {
                    self.tell(field, count, state.count(index));
                }
            } else if let Some(inside) = one_struct(field)
                && self.may_tell(inside)
            {
                self.path.push(field.name.to_string());
                _ = state.save_field(index, &mut Inside(self));
                self.path.pop();
            }
        }
    }

    fn tell(&mut self, field: &Field, count: &Count, number: Option<i64>) {
        let product = number.map(|n| i128::from(n).saturating_mul(count.multiply.into()));
        let number = product.and_then(|n| u32::try_from(n).ok());
        // Beyond the bound saving is refused anyway.
        let Some(number) = number.filter(|n| *n <= count.max) else {
            return;
        };
        if self.found.len() >= MAX_OWN_COUNTS {
            return;
        }
        let aliases = field.aliases.iter();
        let told = OwnCount {
            path: self.inside([field.name.as_ref()]),
            aliases: aliases
                .map(|alias| self.inside(alias_path(alias)))
                .collect(),
            counter: count.source.name().to_owned(),
            number,
            resize_max: field.resize_max,
        };
        self.found.push(told);
    }

    fn may_tell(&self, description: &Description) -> bool {
        has_own(
            description,
            u32::try_from(self.path.len()).unwrap_or(MAX_DEPTH),
        )
    }

    /// The path of something in the structure that is being walked.
    fn inside<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> String {
        let around = self.path.iter().map(String::as_str);
        around.chain(names).collect::<Vec<_>>().join(".")
    }
}

/// The description of a field that is one structure, which is always there.
const fn one_struct(field: &Field) -> Option<&DescriptionRef> {
    match (&field.element, &field.repeat, field.pointers) {
        (
            Element::Struct(inside) | Element::VersionedStruct(inside, _),
            Repeat::Single,
            Pointers::No,
        ) => Some(inside),
        _ => None,
    }
}

/// Whether a number of the device's own stands in a description, or in one that it embeds: nothing else is looked into.
fn has_own(description: &Description, depth: u32) -> bool {
    let own = |field: &Field| {
        field
            .count()
            .is_some_and(|count| matches!(count.source, CountSource::Device(_)))
    };
    let deeper = |inside: &DescriptionRef| has_own(inside, depth.saturating_add(1));
    depth < MAX_DEPTH
        && (description.fields().iter().any(own)
            || description
                .fields()
                .iter()
                .filter_map(one_struct)
                .any(deeper)
            || description.subsections().iter().any(deeper))
}

/// Looks into an embedded structure, and at nothing else.
struct Inside<'a>(&'a mut Walk);

impl SaveField for Inside<'_> {
    fn count(&self) -> usize {
        1
    }

    fn scalar(&mut self, _value: Scalar) -> Result<(), Error> {
        Ok(())
    }

    fn scalars(&mut self, _values: Slice<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn slot(&mut self, _present: bool) -> Result<(), Error> {
        Ok(())
    }

    fn child(&mut self, state: &dyn SaveState) -> Result<(), Error> {
        self.0.state(state);
        Ok(())
    }

    fn list(&mut self, _len: usize) -> Result<(), Error> {
        Ok(())
    }

    fn direct_key(&mut self, _key: u64) -> Result<(), Error> {
        Ok(())
    }

    fn key(&mut self, _key: &dyn SaveState) -> Result<(), Error> {
        Ok(())
    }

    fn raw(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
