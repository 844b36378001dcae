//! Decoding from something that has to wait for its bytes.

use vmstate_desc::{
    Description, Element, Error, ErrorKind, FieldCx, Gate, ListKind, LoadVisitor, Role, ScalarType,
    SliceMut, Slot,
};

use super::input::QemuIn;

/// The most that a decoder asks a [`ByteSource`] for at once, in bytes.
pub const MAX_FILL: usize = 64 << 10;

/// Bytes that come in their own time, from a socket for instance.
pub trait ByteSource {
    /// Everything at hand, at least `at_least` bytes (at most [`MAX_FILL`] are asked for); waits for them. Fewer only if
    /// the input ends before. Nothing is consumed.
    ///
    /// # Errors
    /// Whatever prevents more bytes from coming.
    fn fill(&mut self, at_least: usize) -> Result<&[u8], Error>;

    /// Takes `count` of the bytes that [`ByteSource::fill`] showed.
    fn consume(&mut self, count: usize);

    /// Offset of the next byte in the stream.
    fn offset(&self) -> u64;
}

/// As [`QemuIn`], for bytes that are not all at hand.
///
/// It never waits for a byte that does not have to come: where a subsection may follow, only as long as what is there looks
/// like one. So it can read a section whose footer is the last thing that the peer has sent.
#[derive(Debug)]
pub struct QemuStream<'a, S: ?Sized> {
    source: &'a mut S,
    trees: Vec<Option<u32>>,
}

impl<'a, S: ByteSource + ?Sized> QemuStream<'a, S> {
    /// A decoder of what comes next.
    pub fn new(source: &'a mut S) -> Self {
        Self {
            source,
            trees: Vec::new(),
        }
    }

    /// Runs one call of the decoder, again with more bytes if it needs them: it takes nothing before it has all.
    fn with<R>(&mut self, call: impl Fn(&mut QemuIn<'_>) -> Result<R, Error>) -> Result<R, Error> {
        let mut at_least = 1;
        loop {
            let offset = self.source.offset();
            let bytes = self.source.fill(at_least)?;
            let over = bytes.len() < at_least;
            let mut input = if over {
                QemuIn::new(bytes)
            } else {
                QemuIn::partial(bytes)
            }
            .at(offset)
            .with_trees(std::mem::take(&mut self.trees));
            let result = call(&mut input);
            let (consumed, available) = (input.position(), bytes.len());
            self.trees = input.into_trees();
            match result {
                Err(error) if !over && ends_early(&error) && available < MAX_FILL => {
                    at_least = available.saturating_add(1);
                }
                other => {
                    if other.is_ok() {
                        self.source.consume(consumed);
                    }
                    return other;
                }
            }
        }
    }

    /// Fills `out`, whatever its length.
    fn exact(&mut self, out: &mut [u8], inside: &str) -> Result<(), Error> {
        let mut done: usize = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let needed = rest.len();
            let offset = self.source.offset();
            let bytes = self.source.fill(1)?;
            let count = bytes.len().min(needed);
            if count == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEnd {
                    inside: inside.to_owned().into(),
                    needed: needed as u64,
                    available: 0,
                })
                .at_offset(offset));
            }
            for (out, byte) in rest.iter_mut().zip(bytes) {
                *out = *byte;
            }
            self.source.consume(count);
            done = done.saturating_add(count);
        }
        Ok(())
    }
}

fn ends_early(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEnd { .. })
}

impl<S: ByteSource + ?Sized> LoadVisitor for QemuStream<'_, S> {
    fn begin(&mut self, _d: &Description, version: u32, _role: Role<'_>) -> Result<u32, Error> {
        Ok(version)
    }

    fn end(&mut self, _d: &Description, _role: Role<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn field(&mut self, _cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        Ok(if exists { Gate::Visit } else { Gate::Skip })
    }

    fn end_field(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn slot(&mut self, cx: FieldCx<'_>, index: usize, occupied: bool) -> Result<Slot, Error> {
        // Some slots take no byte, so none may be waited for.
        if let Ok(slot) = QemuIn::new(&[]).slot(cx, index, occupied) {
            return Ok(slot);
        }
        self.with(|input| input.slot(cx, index, occupied))
    }

    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        self.with(|input| input.scalar(cx, ty))
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: SliceMut<'_>) -> Result<(), Error> {
        let inside = cx.field.element.type_name();
        if let SliceMut::U8(values) = values {
            return self.exact(values, inside);
        }
        let offset = self.source.offset();
        // As much as the target has already.
        let length = values.len().saturating_mul(values.scalar_type().size());
        let mut bytes = vec![0; length];
        self.exact(&mut bytes, inside)?;
        QemuIn::new(&bytes).at(offset).scalars(cx, values)
    }

    fn unused(&mut self, _cx: FieldCx<'_>, bytes: usize) -> Result<(), Error> {
        let mut scratch = [0; 256];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(scratch.len());
            self.exact(scratch.get_mut(..now).unwrap_or_default(), "unused bytes")?;
            left = left.saturating_sub(now);
        }
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        self.exact(bytes, cx.field.element.type_name())
    }

    fn length(&mut self, cx: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        self.with(|input| input.length(cx, max))
    }

    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        // A list takes no byte here, a tree does.
        let mut input = QemuIn::new(&[]).with_trees(std::mem::take(&mut self.trees));
        let result = input.list(cx);
        self.trees = input.into_trees();
        if result.is_ok() {
            return result;
        }
        self.with(|input| input.list(cx))
    }

    fn item(&mut self, cx: FieldCx<'_>, index: usize) -> Result<bool, Error> {
        // Behind a count nothing announces an element, so no byte may be waited for.
        if let Element::List(ListKind::Prefixed(_), _) = cx.field.element {
            let mut input = QemuIn::new(&[]).with_trees(std::mem::take(&mut self.trees));
            let result = input.item(cx, index);
            self.trees = input.into_trees();
            return result;
        }
        self.with(|input| input.item(cx, index))
    }

    fn direct_key(&mut self, cx: FieldCx<'_>) -> Result<u64, Error> {
        self.with(|input| input.direct_key(cx))
    }

    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        self.with(|input| input.next_subsection(owner))
    }

    fn plain(&mut self, _d: &'static Description, size: usize, _role: Role<'_>) -> Option<&[u8]> {
        // One byte more for the look-ahead behind the last embedded description. There is one: a footer, or whatever
        // follows the section.
        let needed = size.saturating_add(1);
        if needed > MAX_FILL {
            return None;
        }
        self.source
            .fill(needed)
            .ok()
            .filter(|bytes| bytes.len() >= needed)
    }

    fn consume_plain(&mut self, size: usize) {
        self.source.consume(size);
    }

    fn offset(&self) -> Option<u64> {
        Some(self.source.offset())
    }
}
