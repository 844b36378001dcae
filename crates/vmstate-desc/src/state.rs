//! Accessors: how the engine reads and writes a device's fields.
//!
//! Written by `#[derive(VmState)]`; a device described at run time is [`DynState`](crate::DynState) behind the same
//! traits.

use crate::codec::Scalar;
use crate::description::{Description, DescriptionRef};
use crate::error::{Error, Reason};
use crate::slice::{Slice, SliceMut};

/// A device's state in the direction of saving: a description and the values of its fields.
///
/// Object safe, so the engine is compiled once. Saving takes `&self`: it can be repeated, rehearsed and compared.
pub trait SaveState {
    /// What the state looks like.
    fn description(&self) -> DescriptionRef;

    /// Gives the elements of field number `field` to `sink`.
    ///
    /// # Errors
    /// What `sink` returns, and refusals by the device.
    fn save_field(&self, field: usize, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// Whether a conditional field exists. Asked for fields with [`Field::conditional`](crate::Field::conditional) only, at
    /// the field's place in the walk, when saving and when loading. Validators are asked here too.
    fn exists(&self, field: usize, version: u32) -> bool {
        let _ = (field, version);
        true
    }

    /// The run-time count of a field that has one, before multiplication; of a variant the value of its discriminant. Read now.
    /// What does not fit is `i64::MAX`, which no bound and no case allows.
    fn count(&self, field: usize) -> Option<i64> {
        let _ = field;
        None
    }

    /// Whether the count of a field is configured: the device knows it before anything is loaded, and loading does not change it.
    /// Another end can then hear of it before a migration ([`own_counts`](crate::own_counts)).
    fn is_configured(&self, field: usize) -> bool {
        let _ = field;
        false
    }

    /// Whether this section or subsection is sent. Never asked for embedded state, and never when loading.
    fn needed(&self) -> bool {
        true
    }

    /// Whether a migration has to wait for the guest to let go of this device first.
    fn unplug_pending(&self) -> bool {
        false
    }

    /// Lends subsection number `subsection` to `visit`; does not call it if there is nothing to send.
    ///
    /// # Errors
    /// What `visit` returns.
    fn save_subsection(
        &self,
        subsection: usize,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _ = (subsection, visit);
        Ok(())
    }

    /// Runs before the first field is read; may refuse.
    ///
    /// # Errors
    /// The reason to refuse.
    fn pre_save(&self) -> Result<(), Reason> {
        Ok(())
    }

    /// Runs after the last subsection, also after a failure, if [`SaveState::pre_save`] succeeded.
    fn post_save(&self) {}

    /// Lends what travels in place of this state: a snapshot, taken now and dropped when `visit` returns. `None`, without
    /// calling it, if the state travels itself.
    ///
    /// The engine then asks the snapshot alone, but for the description, which is the same.
    fn save_snapshot(
        &self,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Option<Result<(), Error>> {
        let _ = visit;
        None
    }

    /// Bytes that the state takes in a QEMU stream, if it is plain: fixed size, no conditions, no hooks, no subsections.
    ///
    /// A shortcut for encoders: a plain state is encoded by [`SaveState::save_plain`] instead of field by field, with the
    /// same bytes.
    fn plain_size(&self) -> Option<usize> {
        None
    }

    /// Encodes a plain state as QEMU does into exactly [`SaveState::plain_size`] bytes.
    fn save_plain(&self, out: &mut [u8]) {
        let _ = out;
    }
}

/// A device's state in the direction of loading.
pub trait LoadState: SaveState {
    /// Takes the elements of field number `field` from `source`.
    ///
    /// # Errors
    /// What `source` returns, and refusals by the device.
    fn load_field(&mut self, field: usize, source: &mut dyn LoadField) -> Result<(), Error>;

    /// Lends subsection number `subsection` to `visit`, created if there was none.
    ///
    /// # Errors
    /// What `visit` returns.
    fn load_subsection(
        &mut self,
        subsection: usize,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _ = (subsection, visit);
        Ok(())
    }

    /// Runs before the first field is written: the place for defaults of what may be missing.
    ///
    /// # Errors
    /// The reason to refuse.
    fn pre_load(&mut self) -> Result<(), Reason> {
        Ok(())
    }

    /// Runs after the last subsection with the version that came: checks across fields, fix-ups.
    ///
    /// # Errors
    /// The reason to refuse.
    fn post_load(&mut self, version: u32) -> Result<(), Reason> {
        let _ = version;
        Ok(())
    }

    /// Lends what is loaded in place of this state, and takes it over if `visit` succeeds, which returns the version that
    /// came. `None`, without calling it, if the state is loaded itself.
    fn load_snapshot(
        &mut self,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<u32, Error>,
    ) -> Option<Result<(), Error>> {
        let _ = visit;
        None
    }

    /// Decodes a plain state from its [`SaveState::plain_size`] bytes and whatever follows. `false`: the engine has to walk it
    /// field by field, for the error or because something between the fields is not plain.
    fn load_plain(&mut self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
}

/// A type that is described at compile time: QEMU's `VMStateDescription` and its object in one.
///
/// Implemented by `#[derive(VmState)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no description of its own",
    label = "not device state",
    note = "derive `VmState` for it; scalars, arrays, enums and transparent structs are field values only"
)]
pub trait VmState: LoadState {
    /// What the state looks like; available without a value.
    const DESCRIPTION: &'static Description;
}

/// State that travels in a shape of its own: made from its parent when saving, written back when loading.
///
/// The way out where what is sent differs from what is held: a value computed from several fields, an old layout. The
/// temporary's fields stand in the stream where the parent has its `tmp` field. When loading it begins as its default, at
/// the version of that field.
///
/// QEMU: `VMSTATE_WITH_TMP`.
pub trait Tmp<Parent: ?Sized>: VmState + Default {
    /// Makes the temporary that is sent.
    ///
    /// # Errors
    /// The reason why that is impossible.
    fn capture(parent: &Parent) -> Result<Self, Reason>;

    /// Writes a loaded temporary back.
    ///
    /// # Errors
    /// The reason to refuse what came.
    fn apply(&self, parent: &mut Parent) -> Result<(), Reason>;
}

/// Where [`SaveState::save_field`] puts the elements of a field.
pub trait SaveField {
    /// Units that the field has: elements of an array, bytes of a buffer, words of a bitmap; 1 for a single value.
    fn count(&self) -> usize;

    /// One scalar element.
    ///
    /// # Errors
    /// If the description says something else, or the format fails.
    fn scalar(&mut self, value: Scalar) -> Result<(), Error>;

    /// Several scalar elements, bytes of a buffer (`u8`), words of a bitmap (`u64`).
    ///
    /// # Errors
    /// As [`SaveField::scalar`].
    fn scalars(&mut self, values: Slice<'_>) -> Result<(), Error>;

    /// Announces an element that may be absent. A present one follows.
    ///
    /// # Errors
    /// If the element is absent and the field has no pointers, or the format fails.
    fn slot(&mut self, present: bool) -> Result<(), Error>;

    /// One embedded state: a struct, an element of a list, a value of a tree.
    ///
    /// # Errors
    /// As [`SaveField::scalar`], and what the child's walk returns.
    fn child(&mut self, state: &dyn SaveState) -> Result<(), Error>;

    /// The number of elements of a list or nodes of a tree: before the first of them. Means nothing for arrays.
    ///
    /// # Errors
    /// As [`SaveField::scalar`].
    fn list(&mut self, len: usize) -> Result<(), Error>;

    /// The integer key of a tree's node, before its value.
    ///
    /// # Errors
    /// As [`SaveField::scalar`].
    fn direct_key(&mut self, key: u64) -> Result<(), Error>;

    /// The key object of a tree's node, before its value.
    ///
    /// # Errors
    /// As [`SaveField::child`].
    fn key(&mut self, key: &dyn SaveState) -> Result<(), Error>;

    /// Bytes of a custom codec, a capability's name, a byte array.
    ///
    /// # Errors
    /// As [`SaveField::scalar`].
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

/// What comes next in an array or list that is being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slot {
    /// Nothing in this slot.
    Absent,
    /// An element, to be loaded into what the target has in the slot.
    InPlace,
    /// An element, to be loaded into a new object.
    New,
}

/// Where [`LoadState::load_field`] takes the elements of a field from.
pub trait LoadField {
    /// Units that the field has: elements of an array, bytes of a buffer, words of a bitmap; 1 for a single value. Checked
    /// against the description's bound.
    fn count(&self) -> usize;

    /// Units that the target has of its own, where it takes another number ([`Field::resize_max`](crate::Field::resize_max)):
    /// those from [`LoadField::count`] on do not come, and stay as they were before loading.
    fn own_count(&self) -> usize {
        self.count()
    }

    /// The discriminant's value: which case of a variant follows. `None` for all other fields.
    fn case(&self) -> Option<i64> {
        None
    }

    /// Whether an element follows. Arrays: until the count is reached. Lists and trees: what the stream says. Reserves one
    /// element of `size` bytes in the memory budget.
    ///
    /// # Errors
    /// If the format fails or the budget is used up.
    fn more(&mut self, size: usize) -> Result<bool, Error>;

    /// One scalar element. `local` is the target's present value, against which equality codecs check; without it
    /// nothing is checked.
    ///
    /// # Errors
    /// If the description says something else, the check fails, or the format fails.
    fn scalar(&mut self, local: Option<Scalar>) -> Result<Scalar, Error>;

    /// Several scalar elements, bytes of a buffer (`u8`), words of a bitmap (`u64`).
    ///
    /// # Errors
    /// As [`LoadField::scalar`].
    fn scalars(&mut self, values: SliceMut<'_>) -> Result<(), Error>;

    /// What comes in this slot, given whether the target has an object there.
    ///
    /// # Errors
    /// A wrong marker, or a format's error.
    fn slot(&mut self, occupied: bool) -> Result<Slot, Error>;

    /// Loads an embedded state: a struct, an element of a list, a value of a tree.
    ///
    /// # Errors
    /// As [`LoadField::scalar`], and what the child's walk returns.
    fn child(&mut self, state: &mut dyn LoadState) -> Result<(), Error>;

    /// The integer key of a tree's node, before its value.
    ///
    /// # Errors
    /// As [`LoadField::scalar`].
    fn direct_key(&mut self) -> Result<u64, Error>;

    /// Loads the key object of a tree's node, before its value.
    ///
    /// # Errors
    /// As [`LoadField::child`].
    fn key(&mut self, key: &mut dyn LoadState) -> Result<(), Error>;

    /// Length of the next element of an array whose elements carry their own: capabilities, byte arrays. A single one's
    /// length is its [`LoadField::count`].
    ///
    /// # Errors
    /// As [`LoadField::scalar`], and a length above the description's bound.
    fn length(&mut self) -> Result<usize, Error>;

    /// Fills `bytes` for a custom codec.
    ///
    /// # Errors
    /// As [`LoadField::scalar`].
    fn raw(&mut self, bytes: &mut [u8]) -> Result<(), Error>;

    /// Charges `bytes` of memory that the device is about to take because the stream says so.
    ///
    /// # Errors
    /// If the budget is used up.
    fn reserve(&mut self, bytes: usize) -> Result<(), Error>;

    /// The version of what is loaded here: of an embedded state its own or the one that the field says, of all else that
    /// of the state which the field belongs to.
    fn version(&self) -> u32;

    /// The same error with the place in the stream.
    fn located(&self, e: Error) -> Error;

    /// An error of the device's own about the element that was loaded last.
    fn refuse(&self, hook: &'static str, reason: Reason) -> Error;

    /// An error of the device's own about the field as a whole.
    fn refuse_field(&self, hook: &'static str, reason: Reason) -> Error;
}
