//! Visitors: a format's side of the traversal.
//!
//! The engine ([`save`](crate::save), [`load`](crate::load)) walks a description over an accessor and calls a visitor. Each format
//! is one pair of visitors; none knows another.

use crate::codec::ScalarType;
use crate::description::{Description, DescriptionRef};
use crate::error::Error;
use crate::field::Field;
use crate::slice::{Slice, SliceMut};
use crate::state::Slot;

/// The field that a call is about.
#[derive(Debug, Clone, Copy)]
pub struct FieldCx<'a> {
    /// The description that the field belongs to.
    pub description: &'a Description,
    /// Position of the field in it.
    pub index: usize,
    /// The field.
    pub field: &'a Field,
    /// Units: elements of an array, bytes of a buffer, words of a bitmap; 1 for a single value; 0 for lists, trees and other
    /// things whose length only the format knows.
    pub count: usize,
}

/// How a description is embedded in what encloses it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Role<'a> {
    /// The root of the walk.
    Top,
    /// Element `index` of a field: a struct, a temporary, an element of a list, a value of a tree.
    Element {
        /// The field.
        cx: FieldCx<'a>,
        /// From 0.
        index: usize,
    },
    /// The chosen case of a variant.
    Case {
        /// The field.
        cx: FieldCx<'a>,
        /// The discriminant's value.
        value: i64,
    },
    /// The key object of node `index` of a tree.
    Key {
        /// The field.
        cx: FieldCx<'a>,
        /// From 0.
        index: usize,
    },
    /// A subsection of the enclosing description.
    Subsection,
    /// Somewhere inside a custom codec's bytes.
    Custom,
}

/// What a visitor wants to happen with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// Walk it.
    Visit,
    /// Leave it out.
    Skip,
}

/// A format in the direction of saving.
///
/// For each present field: [`field`](SaveVisitor::field), its elements, [`end_field`](SaveVisitor::end_field). Nothing is called for
/// an absent field but [`absent`](SaveVisitor::absent).
pub trait SaveVisitor {
    /// A description begins.
    ///
    /// # Errors
    /// The format's.
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<(), Error>;

    /// A description ends.
    ///
    /// # Errors
    /// The format's.
    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error>;

    /// A present field begins.
    ///
    /// # Errors
    /// The format's.
    fn field(&mut self, cx: FieldCx<'_>) -> Result<Gate, Error>;

    /// A field that is not there.
    ///
    /// # Errors
    /// The format's.
    fn absent(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        let _ = cx;
        Ok(())
    }

    /// A present field ends.
    ///
    /// # Errors
    /// The format's.
    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error>;

    /// Element `index` of an array of pointers is present or absent.
    ///
    /// # Errors
    /// The format's.
    fn slot(&mut self, cx: FieldCx<'_>, index: usize, present: bool) -> Result<(), Error>;

    /// One scalar. `bits` as in [`Scalar::to_bits`](crate::Scalar::to_bits).
    ///
    /// # Errors
    /// The format's.
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error>;

    /// Several scalars, bytes of a buffer, words of a bitmap.
    ///
    /// # Errors
    /// The format's.
    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error>;

    /// `bytes` unused bytes.
    ///
    /// # Errors
    /// The format's.
    fn unused(&mut self, cx: FieldCx<'_>, bytes: usize) -> Result<(), Error>;

    /// Bytes of a custom codec, a capability's name, a byte array.
    ///
    /// # Errors
    /// The format's.
    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error>;

    /// A list or tree of `len` elements begins.
    ///
    /// # Errors
    /// The format's.
    fn list(&mut self, cx: FieldCx<'_>, len: usize) -> Result<(), Error>;

    /// Element `index` of a list or tree follows.
    ///
    /// # Errors
    /// The format's.
    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<(), Error>;

    /// The list or tree is over.
    ///
    /// # Errors
    /// The format's.
    fn end_list(&mut self, cx: FieldCx<'_>) -> Result<(), Error>;

    /// Integer key of a tree's node.
    ///
    /// # Errors
    /// The format's.
    fn direct_key(&mut self, cx: FieldCx<'_>, key: u64) -> Result<(), Error>;

    /// A place for `size` bytes of QEMU encoding, if the format can take this description as a whole. The visitor then
    /// gets neither `begin` nor `end` for it, but [`end_plain`](SaveVisitor::end_plain).
    fn plain(&mut self, d: &'static Description, size: usize, role: Role<'_>) -> Option<&mut [u8]> {
        let _ = (d, size, role);
        None
    }

    /// The place that [`plain`](SaveVisitor::plain) gave last has been filled.
    ///
    /// # Errors
    /// The format's.
    fn end_plain(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A format in the direction of loading.
pub trait LoadVisitor {
    /// A description begins; `version` is what the enclosing state implies. Returns the version in force.
    ///
    /// # Errors
    /// The format's.
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<u32, Error>;

    /// What the traversal calls for [`begin`](LoadVisitor::begin): a format that keeps the reference knows the description again by
    /// its address.
    ///
    /// # Errors
    /// The format's.
    fn begin_ref(
        &mut self,
        d: &DescriptionRef,
        version: u32,
        role: Role<'_>,
    ) -> Result<u32, Error> {
        self.begin(d, version, role)
    }

    /// A description ends.
    ///
    /// # Errors
    /// The format's.
    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error>;

    /// A field comes next; `exists` is what the description and the device say.
    ///
    /// # Errors
    /// The format's.
    fn field(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error>;

    /// Units that come for the field that is visited, where the format tells and the field takes another number than its own
    /// ([`Field::resize_max`]): at most one more than that, however many there are. `None`: as many as the target has.
    ///
    /// # Errors
    /// The format's.
    fn units(&mut self, cx: FieldCx<'_>) -> Result<Option<usize>, Error> {
        let _ = cx;
        Ok(None)
    }

    /// A visited field ends.
    ///
    /// # Errors
    /// The format's.
    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error>;

    /// What comes in slot `index` of an array of pointers, given whether the target has an object there.
    ///
    /// # Errors
    /// A wrong marker, or the format's.
    fn slot(&mut self, cx: FieldCx<'_>, index: usize, occupied: bool) -> Result<Slot, Error>;

    /// One scalar; bits as in [`Scalar::to_bits`](crate::Scalar::to_bits), a bool's byte as it came.
    ///
    /// # Errors
    /// The format's.
    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error>;

    /// Several scalars, bytes of a buffer, words of a bitmap.
    ///
    /// # Errors
    /// The format's.
    fn scalars(&mut self, cx: FieldCx<'_>, values: SliceMut<'_>) -> Result<(), Error>;

    /// `bytes` unused bytes.
    ///
    /// # Errors
    /// The format's.
    fn unused(&mut self, cx: FieldCx<'_>, bytes: usize) -> Result<(), Error>;

    /// Bytes of a custom codec.
    ///
    /// # Errors
    /// The format's.
    fn raw(&mut self, cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error>;

    /// Length of what carries its own: a capability's name, a byte array. Not above `max`.
    ///
    /// # Errors
    /// A length above `max`, or the format's.
    fn length(&mut self, cx: FieldCx<'_>, max: usize) -> Result<usize, Error>;

    /// A list or tree begins.
    ///
    /// # Errors
    /// The format's.
    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error>;

    /// Whether element `index` of a list or tree follows; `false` ends it.
    ///
    /// # Errors
    /// The format's.
    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<bool, Error>;

    /// Integer key of a tree's node.
    ///
    /// # Errors
    /// The format's.
    fn direct_key(&mut self, cx: FieldCx<'_>) -> Result<u64, Error>;

    /// Which subsection of `owner` comes next, with its version, if any.
    ///
    /// # Errors
    /// An unknown subsection, or the format's.
    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error>;

    /// The state that comes next in QEMU encoding: its `size` bytes, and whatever follows them in a QEMU stream. `None` if they
    /// cannot be had as a whole, or if what comes is not of the description's own version. Nothing is consumed.
    fn plain(&mut self, d: &'static Description, size: usize, role: Role<'_>) -> Option<&[u8]> {
        let _ = (d, size, role);
        None
    }

    /// Consumes what [`LoadVisitor::plain`] showed. Subsections are asked for then; neither `begin` nor `end` comes.
    fn consume_plain(&mut self, size: usize) {
        let _ = size;
    }

    /// Byte offset of what comes next.
    fn offset(&self) -> Option<u64> {
        None
    }
}
