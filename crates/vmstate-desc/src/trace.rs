//! Visitors around visitors: what the engine calls, and two formats at once.

use std::fmt::Write as _;

use crate::codec::{Scalar, ScalarType};
use crate::description::Description;
use crate::error::Error;
use crate::slice::{Slice, SliceMut};
use crate::state::Slot;
use crate::visit::{FieldCx, Gate, LoadVisitor, Role, SaveVisitor};

/// Hands every call on to `inner` and writes a line about it, indented by depth: what devices of one description make must be the same,
/// however they are made.
///
/// ```
/// use vmstate_desc::trace::{Nothing, Trace};
/// use vmstate_desc::{Codec, Description, DynState, Field, Scalar};
///
/// let mut description = Description::new("led", 1, 1);
/// description.fields = vec![Field::value("on", Codec::Bool)].into();
/// let mut led = DynState::new(description);
/// led.set("on", Scalar::Bool(true));
/// let mut text = String::new();
/// vmstate_desc::save(&led, &mut Trace::new(&mut Nothing, &mut text))?;
/// assert_eq!(text, "led version 1\n  on: bool = true\n");
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
#[derive(Debug)]
pub struct Trace<'a, V: ?Sized> {
    inner: &'a mut V,
    text: &'a mut String,
    depth: usize,
}

impl<'a, V: ?Sized> Trace<'a, V> {
    /// Writes to `text`.
    #[must_use]
    pub const fn new(inner: &'a mut V, text: &'a mut String) -> Self {
        Self {
            inner,
            text,
            depth: 0,
        }
    }

    fn line(&mut self, args: std::fmt::Arguments<'_>) {
        let indent = self.depth.saturating_mul(2);
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:indent$}{args}", "");
    }

    fn opens(&mut self, d: &Description, version: u32, role: Role<'_>) {
        let case;
        let role = match role {
            Role::Subsection => "subsection ",
            Role::Key { .. } => "key ",
            Role::Case { value, .. } => {
                case = format!("case {value} ");
                &case
            }
            _ => "",
        };
        self.line(format_args!("{role}{} version {version}", d.name));
        self.depth = self.depth.saturating_add(1);
    }

    const fn closes(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn value(&mut self, cx: FieldCx<'_>, value: std::fmt::Arguments<'_>) {
        let (name, ty) = (&cx.field.name, cx.field.element.type_name());
        self.line(format_args!("{name}: {ty} = {value}"));
    }

    fn number(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) {
        self.value(cx, format_args!("{}", Scalar::from_bits(ty, bits)));
    }

    fn bytes(&mut self, cx: FieldCx<'_>, bytes: &[u8]) {
        let shown: String = bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        self.value(cx, format_args!("{shown}"));
    }
}

impl<V: SaveVisitor + ?Sized> SaveVisitor for Trace<'_, V> {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<(), Error> {
        self.opens(d, version, role);
        self.inner.begin(d, version, role)
    }

    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error> {
        self.closes();
        self.inner.end(d, role)
    }

    fn field(&mut self, cx: FieldCx<'_>) -> Result<Gate, Error> {
        self.inner.field(cx)
    }

    fn absent(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.line(format_args!("{}: absent", cx.field.name));
        self.inner.absent(cx)
    }

    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.inner.end_field(cx)
    }

    fn slot(&mut self, cx: FieldCx<'_>, index: usize, present: bool) -> Result<(), Error> {
        let word = if present { "present" } else { "absent" };
        self.line(format_args!("{}[{index}]: {word}", cx.field.name));
        self.inner.slot(cx, index, present)
    }

    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error> {
        self.number(cx, ty, bits);
        self.inner.scalar(cx, ty, bits)
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        // One line each, as if they came one by one: which of the two an accessor does is its own affair.
        if let Slice::U8(bytes) = values {
            self.bytes(cx, bytes);
        } else {
            for index in 0..values.len() {
                if let Some(scalar) = values.get(index) {
                    self.value(cx, format_args!("{scalar}"));
                }
            }
        }
        self.inner.scalars(cx, values)
    }

    fn unused(&mut self, cx: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        self.value(cx, format_args!("{bytes} bytes"));
        self.inner.unused(cx, bytes)
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error> {
        self.bytes(cx, bytes);
        self.inner.raw(cx, bytes)
    }

    fn list(&mut self, cx: FieldCx<'_>, len: usize) -> Result<(), Error> {
        self.value(cx, format_args!("{len} elements"));
        self.inner.list(cx, len)
    }

    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<(), Error> {
        self.inner.item(cx, index)
    }

    fn end_list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.inner.end_list(cx)
    }

    fn direct_key(&mut self, cx: FieldCx<'_>, key: u64) -> Result<(), Error> {
        self.line(format_args!("key {key:#x}"));
        self.inner.direct_key(cx, key)
    }
}

impl<V: LoadVisitor + ?Sized> LoadVisitor for Trace<'_, V> {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<u32, Error> {
        let version = self.inner.begin(d, version, role)?;
        self.opens(d, version, role);
        Ok(version)
    }

    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error> {
        self.closes();
        self.inner.end(d, role)
    }

    fn field(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        let gate = self.inner.field(cx, exists)?;
        if gate == Gate::Skip {
            self.line(format_args!("{}: absent", cx.field.name));
        }
        Ok(gate)
    }

    fn units(&mut self, cx: FieldCx<'_>) -> Result<Option<usize>, Error> {
        self.inner.units(cx)
    }

    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.inner.end_field(cx)
    }

    fn slot(&mut self, cx: FieldCx<'_>, index: usize, occupied: bool) -> Result<Slot, Error> {
        let slot = self.inner.slot(cx, index, occupied)?;
        self.line(format_args!("{}[{index}]: {slot:?}", cx.field.name));
        Ok(slot)
    }

    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        let bits = self.inner.scalar(cx, ty)?;
        self.number(cx, ty, bits);
        Ok(bits)
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: SliceMut<'_>) -> Result<(), Error> {
        let count = values.len();
        self.inner.scalars(cx, values)?;
        self.value(cx, format_args!("{count} elements"));
        Ok(())
    }

    fn unused(&mut self, cx: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        self.value(cx, format_args!("{bytes} bytes"));
        self.inner.unused(cx, bytes)
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        self.inner.raw(cx, bytes)?;
        self.bytes(cx, bytes);
        Ok(())
    }

    fn length(&mut self, cx: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        self.inner.length(cx, max)
    }

    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        self.inner.list(cx)
    }

    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<bool, Error> {
        let more = self.inner.item(cx, index)?;
        if !more {
            self.value(cx, format_args!("{index} elements"));
        }
        Ok(more)
    }

    fn direct_key(&mut self, cx: FieldCx<'_>) -> Result<u64, Error> {
        let key = self.inner.direct_key(cx)?;
        self.line(format_args!("key {key:#x}"));
        Ok(key)
    }

    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        self.inner.next_subsection(owner)
    }

    fn offset(&self) -> Option<u64> {
        self.inner.offset()
    }
}

/// Two formats in one walk over a device that must not be walked twice, because it changes, say.
#[derive(Debug)]
pub struct Tee<'a, A: ?Sized, B: ?Sized>(pub &'a mut A, pub &'a mut B);

macro_rules! both {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        fn $name(&mut self, $($arg: $ty),*) -> Result<(), Error> {
            self.0.$name($($arg),*)?;
            self.1.$name($($arg),*)
        }
    )*};
}

impl<A: SaveVisitor + ?Sized, B: SaveVisitor + ?Sized> SaveVisitor for Tee<'_, A, B> {
    both! {
        begin(d: &Description, version: u32, role: Role<'_>);
        end(d: &Description, role: Role<'_>);
        absent(cx: FieldCx<'_>);
        end_field(cx: FieldCx<'_>);
        slot(cx: FieldCx<'_>, index: usize, present: bool);
        scalar(cx: FieldCx<'_>, ty: ScalarType, bits: u64);
        scalars(cx: FieldCx<'_>, values: Slice<'_>);
        unused(cx: FieldCx<'_>, bytes: usize);
        raw(cx: FieldCx<'_>, bytes: &[u8]);
        list(cx: FieldCx<'_>, len: usize);
        item(cx: FieldCx<'_>, index: usize);
        end_list(cx: FieldCx<'_>);
        direct_key(cx: FieldCx<'_>, key: u64);
    }

    /// Both leave a field out, or none does.
    fn field(&mut self, cx: FieldCx<'_>) -> Result<Gate, Error> {
        match (self.0.field(cx)?, self.1.field(cx)?) {
            (Gate::Visit, Gate::Visit) => Ok(Gate::Visit),
            (Gate::Skip, Gate::Skip) => Ok(Gate::Skip),
            _ => Err(Error::format(format!(
                "one format leaves out {}, the other one does not",
                cx.field.name
            ))),
        }
    }
}

/// A format without bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

macro_rules! nothing {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        fn $name(&mut self, $($arg: $ty),*) -> Result<(), Error> {
            $(let _ = $arg;)*
            Ok(())
        }
    )*};
}

impl SaveVisitor for Nothing {
    nothing! {
        begin(d: &Description, version: u32, role: Role<'_>);
        end(d: &Description, role: Role<'_>);
        end_field(cx: FieldCx<'_>);
        slot(cx: FieldCx<'_>, index: usize, present: bool);
        scalar(cx: FieldCx<'_>, ty: ScalarType, bits: u64);
        scalars(cx: FieldCx<'_>, values: Slice<'_>);
        unused(cx: FieldCx<'_>, bytes: usize);
        raw(cx: FieldCx<'_>, bytes: &[u8]);
        list(cx: FieldCx<'_>, len: usize);
        item(cx: FieldCx<'_>, index: usize);
        end_list(cx: FieldCx<'_>);
        direct_key(cx: FieldCx<'_>, key: u64);
    }

    fn field(&mut self, _cx: FieldCx<'_>) -> Result<Gate, Error> {
        Ok(Gate::Visit)
    }
}
