//! The section `dbus-vmstate/dbus-vmstate`: its description, and its two fields where they are.
//!
//! | offset | size | order | meaning |
//! |---|---|---|---|
//! | 0 | 4 | big-endian | `data_size`: bytes of the blob, padding included; at most 2^31 - 1 |
//! | 4 | `data_size` | | `data`: the [blob](vmstate_wire::helpers) |
//!
//! Wire: QEMU 5.0 to 11.1, object `dbus-vmstate`, compared with what 7.2 and 11.1 write.

use vmstate_desc::support::access::no_field;
use vmstate_desc::{
    Codec, Count, Description, DescriptionRef, Error, Field, LoadField, LoadState, Reason,
    SaveField, SaveState, Scalar, Size, Slice, SliceMut,
};
use vmstate_wire::helpers::{BlobError, BlobReader, Element, MAX_BLOB, blob_size, write_blob};

use crate::calls::Rehearsal;
use crate::session::Saved;

/// What the section looks like, in streams of QEMU and in ours.
pub static DESCRIPTION: Description = Description::new("dbus-vmstate", 0, 0).with_fields(
    const {
        &[
            Field::value("data_size", Codec::Uint32),
            Field::value(
                "data",
                Codec::Buffer(Size::Counted(Count::of_field("data_size", MAX_BLOB))),
            ),
        ]
    },
);

const SIZE: usize = 0;
const DATA: usize = 1;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

fn description() -> DescriptionRef {
    DescriptionRef::Static(&DESCRIPTION)
}

/// States on their way out. They stay in the messages in which they came.
pub(crate) struct Outbound<'a> {
    elements: Vec<(&'a [u8], &'a [u8])>,
    size: u32,
}

impl<'a> Outbound<'a> {
    pub(crate) fn new(saved: &'a Saved) -> Result<Self, BlobError> {
        let elements: Vec<(&[u8], &[u8])> = saved
            .states
            .iter()
            .map(|(id, state)| (id.as_bytes(), state.bytes()))
            .collect();
        let (_, size) = blob_size(elements.iter().copied())?;
        Ok(Self { elements, size })
    }
}

impl SaveState for Outbound<'_> {
    fn description(&self) -> DescriptionRef {
        description()
    }

    fn save_field(&self, field: usize, sink: &mut dyn SaveField) -> Result<(), Error> {
        match field {
            SIZE => sink.scalar(Scalar::U32(self.size)),
            DATA => write_blob(&self.elements, |piece| {
                sink.scalars(Slice::U8(piece)).map_err(Stop::Sink)
            })
            .map_err(Error::from),
            _ => Err(no_field(field)),
        }
    }

    fn count(&self, field: usize) -> Option<i64> {
        (field == DATA).then(|| self.size.into())
    }
}

/// Why a blob is not complete.
enum Stop {
    Blob(BlobError),
    Sink(Error),
}

impl From<BlobError> for Stop {
    fn from(error: BlobError) -> Self {
        Self::Blob(error)
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Blob(error) => Self::refused("pre_save", Reason::new(error.to_string())),
            Stop::Sink(error) => error,
        }
    }
}

/// States that are coming in.
#[derive(Debug)]
pub(crate) struct Inbound {
    size: u32,
    reader: Option<BlobReader>,
    present: Rehearsal,
    elements: Vec<Element>,
}

impl Inbound {
    /// A section with elements for those who are present.
    pub(crate) fn new(present: Rehearsal) -> Self {
        Self {
            size: 0,
            reader: Some(present.reader()),
            present,
            elements: Vec::new(),
        }
    }

    fn refuse(&self, source: &dyn LoadField, error: &BlobError) -> Error {
        let reason = self.present.explain(error);
        source.refuse_field("post_load", Reason::new(reason))
    }

    /// What has come, once the section has been loaded.
    pub(crate) fn into_elements(self) -> Vec<Element> {
        self.elements
    }
}

impl SaveState for Inbound {
    fn description(&self) -> DescriptionRef {
        description()
    }

    fn save_field(&self, field: usize, _sink: &mut dyn SaveField) -> Result<(), Error> {
        Err(no_field(field))
    }

    fn count(&self, field: usize) -> Option<i64> {
        (field == DATA).then(|| self.size.into())
    }
}

impl LoadState for Inbound {
    fn load_field(&mut self, field: usize, source: &mut dyn LoadField) -> Result<(), Error> {
        match field {
            SIZE => {
                if let Scalar::U32(size) = source.scalar(None)? {
                    self.size = size;
                }
                Ok(())
            }
            DATA => {
                let mut reader = self.reader.take().unwrap_or_else(|| BlobReader::new(0));
                let mut piece = vec![0; PIECE.min(self.size as usize)];
                let mut left = self.size as usize;
                while left > 0 {
                    let take = left.min(piece.len());
                    let bytes = piece.get_mut(..take).unwrap_or_default();
                    source.scalars(SliceMut::U8(&mut *bytes))?;
                    let pushed = reader.push(bytes);
                    pushed.map_err(|error| self.refuse(source, &error))?;
                    left -= take;
                }
                let elements = reader.finish();
                self.elements = elements.map_err(|error| self.refuse(source, &error))?;
                Ok(())
            }
            _ => Err(no_field(field)),
        }
    }
}
