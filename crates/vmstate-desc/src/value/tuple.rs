//! Tuples: structs whose fields are called `0`, `1`, ….

use super::{FieldValue, repeat_of};
use crate::description::{Description, DescriptionRef};
use crate::error::Error;
use crate::field::{Element, Field};
use crate::state::{LoadField, LoadState, SaveField, SaveState, VmState};
use crate::support::access::no_field;

/// A field whose type says how many values there are.
const fn field<T: FieldValue>(name: &'static str) -> Field {
    assert!(
        !T::OPEN,
        "an `Option`, `Vec` or boxed slice in a tuple has no place for its bound: use a struct"
    );
    Field::new(name, T::ELEMENT).repeat(repeat_of::<T>())
}

macro_rules! tuple {
    ($($T:ident $number:tt,)*) => {
        impl<$($T: FieldValue),*> VmState for ($($T,)*) {
            const DESCRIPTION: &'static Description = &Description::new("tuple", 0, 0)
                .with_fields(const { &[$(field::<$T>(stringify!($number))),*] });
        }

        impl<$($T: FieldValue),*> SaveState for ($($T,)*) {
            fn description(&self) -> DescriptionRef {
                DescriptionRef::Static(Self::DESCRIPTION)
            }

            fn save_field(&self, field: usize, sink: &mut dyn SaveField) -> Result<(), Error> {
                match field {
                    $($number => self.$number.save(sink),)*
                    _ => Err(no_field(field)),
                }
            }
        }

        impl<$($T: FieldValue),*> LoadState for ($($T,)*) {
            fn load_field(&mut self, field: usize, source: &mut dyn LoadField) -> Result<(), Error> {
                match field {
                    $($number => self.$number.load(source),)*
                    _ => Err(no_field(field)),
                }
            }
        }

        impl<$($T: FieldValue),*> FieldValue for ($($T,)*) {
            const ELEMENT: Element = Element::Struct(DescriptionRef::Static(Self::DESCRIPTION));

            fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
                sink.child(self)
            }

            fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
                source.child(self)
            }
        }
    };
}

tuple!(A 0,);
tuple!(A 0, B 1,);
tuple!(A 0, B 1, C 2,);
tuple!(A 0, B 1, C 2, D 3,);
tuple!(A 0, B 1, C 2, D 3, E 4,);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5,);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6,);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7,);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let d = <(u8, [u16; 3], (bool,))>::DESCRIPTION;
        assert!(d.check().is_ok());
        let names: Vec<_> = d.fields().iter().map(|field| &*field.name).collect();
        assert_eq!(names, ["0", "1", "2"]);
    }

    #[test]
    #[should_panic(expected = "has no place for its bound")]
    fn what_needs_a_bound_has_no_place() {
        let _ = field::<[Vec<u8>; 2]>("0");
    }
}
