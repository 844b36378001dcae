//! Reading a blob, in pieces of any size.

use std::collections::BTreeSet;
use std::mem;

use super::{BlobError, BlobErrorKind, Element, MAX_ID, MAX_STATE};

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Count,
    IdLength,
    Id(usize),
    StateLength,
    State(usize),
    Padding,
}

/// Takes a blob in pieces. Keeps the elements and nothing else: memory grows with the bytes that have come, and padding takes none.
///
/// After an error, the reader takes nothing more.
#[derive(Debug)]
pub struct BlobReader {
    most: u32,
    /// Ids that may occur.
    only: Option<BTreeSet<Vec<u8>>>,
    next: Next,
    /// Bytes of a number that is not complete.
    number: Vec<u8>,
    count: u32,
    offset: u64,
    /// Where that which comes next begins.
    start: u64,
    /// Of the element that is being read.
    id: Vec<u8>,
    /// Of the element that is being read.
    state: Vec<u8>,
    elements: Vec<Element>,
    ids: BTreeSet<Vec<u8>>,
    failed: Option<BlobError>,
    odd: bool,
}

impl BlobReader {
    /// A reader that accepts `most` elements.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self {
            most,
            only: None,
            next: Next::Count,
            number: Vec::new(),
            count: 0,
            offset: 0,
            start: 0,
            id: Vec::new(),
            state: Vec::new(),
            elements: Vec::new(),
            ids: BTreeSet::new(),
            failed: None,
            odd: false,
        }
    }

    /// Takes elements with these ids only: the first with another is an error, before its state has taken memory.
    ///
    /// ```
    /// use vmstate_wire::helpers::{BlobErrorKind, BlobReader, put_blob};
    ///
    /// let mut blob = Vec::new();
    /// put_blob(&mut blob, &[(b"net0", b"abc"), (b"tpm0", b"xy")])?;
    /// let mut reader = BlobReader::new(2).only([b"net0".to_vec()]);
    /// let error = reader.push(&blob).unwrap_err();
    /// assert_eq!(*error.kind(), BlobErrorKind::Unknown { id: b"tpm0".to_vec() });
    /// # Ok::<(), vmstate_wire::helpers::BlobError>(())
    /// ```
    #[must_use]
    pub fn only(mut self, ids: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.only = Some(ids.into_iter().collect());
        self
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`BlobError`], the first that was found.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.take(rest) {
                Ok(left) => rest = left,
                Err(error) => {
                    *self = Self {
                        failed: Some(error.clone()),
                        ..Self::new(self.most)
                    };
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// All elements, in the order of the blob, once all of it has been given to [`push`](Self::push).
    ///
    /// # Errors
    /// What `push` has found, and a blob that is not complete.
    pub fn finish(self) -> Result<Vec<Element>, BlobError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let number = 4_usize.saturating_sub(self.number.len());
        let (inside, missing) = match self.next {
            Next::Padding => return Ok(self.elements),
            Next::Count => ("the number of elements", number),
            Next::IdLength => ("the length of an id", number),
            Next::Id(left) => ("an id", left),
            Next::StateLength => ("the length of a state", number),
            Next::State(left) => ("a state", left),
        };
        let missing = missing as u64;
        Err(self.error_at(self.offset, BlobErrorKind::End { inside, missing }))
    }

    /// Whether there were bytes other than zero behind the last element.
    #[must_use]
    pub fn has_odd_padding(&self) -> bool {
        self.odd
    }

    /// Takes some of `bytes`, at least one, and returns the rest.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], BlobError> {
        let wanted = match self.next {
            Next::Count | Next::IdLength | Next::StateLength => {
                4_usize.saturating_sub(self.number.len())
            }
            Next::Id(left) | Next::State(left) => left,
            Next::Padding => bytes.len(),
        };
        let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
        let left = wanted.saturating_sub(now.len());
        self.offset = self.offset.saturating_add(now.len() as u64);
        match self.next {
            Next::Count | Next::IdLength | Next::StateLength => {
                self.number.extend_from_slice(now);
                if left == 0 {
                    self.number()?;
                }
            }
            Next::Id(_) => {
                self.id.extend_from_slice(now);
                self.next = Next::Id(left);
                if left == 0 {
                    self.id_done()?;
                }
            }
            Next::State(_) => {
                self.state.extend_from_slice(now);
                self.next = Next::State(left);
                if left == 0 {
                    self.element_done();
                }
            }
            Next::Padding => self.odd |= now.iter().any(|byte| *byte != 0),
        }
        Ok(rest)
    }

    /// A number is complete.
    fn number(&mut self) -> Result<(), BlobError> {
        let value = self
            .number
            .iter()
            .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        self.number.clear();
        let length = value as usize;
        match self.next {
            Next::Count if value > self.most => {
                let (found, most) = (value, self.most);
                return Err(self.error(BlobErrorKind::Count { found, most }));
            }
            Next::Count => {
                self.count = value;
                self.begin();
            }
            Next::IdLength if length == 0 => {
                let announced = self.count;
                let found = u32::try_from(self.elements.len()).unwrap_or(u32::MAX);
                return Err(self.error(BlobErrorKind::Lost { announced, found }));
            }
            Next::IdLength if length > MAX_ID => {
                let found = value.into();
                return Err(self.error(BlobErrorKind::IdLength { found }));
            }
            Next::IdLength => self.go_on(Next::Id(length)),
            Next::StateLength if length > MAX_STATE => {
                let (id, found) = (self.id.clone(), value.into());
                return Err(self.error(BlobErrorKind::StateLength { id, found }));
            }
            Next::StateLength if length == 0 => self.element_done(),
            Next::StateLength => self.go_on(Next::State(length)),
            // These have no number.
            Next::Id(_) | Next::State(_) | Next::Padding => {}
        }
        Ok(())
    }

    fn id_done(&mut self) -> Result<(), BlobError> {
        if self
            .only
            .as_ref()
            .is_some_and(|ids| !ids.contains(&self.id))
        {
            let id = self.id.clone();
            return Err(self.error(BlobErrorKind::Unknown { id }));
        }
        if !self.ids.insert(self.id.clone()) {
            let id = self.id.clone();
            return Err(self.error(BlobErrorKind::Duplicate { id }));
        }
        self.go_on(Next::StateLength);
        Ok(())
    }

    fn element_done(&mut self) {
        self.elements.push(Element {
            id: mem::take(&mut self.id),
            state: mem::take(&mut self.state),
        });
        self.begin();
    }

    /// Goes on to the next element, if there is one.
    fn begin(&mut self) {
        let complete = self.elements.len() >= self.count as usize;
        self.go_on(if complete {
            Next::Padding
        } else {
            Next::IdLength
        });
    }

    fn go_on(&mut self, next: Next) {
        self.next = next;
        self.start = self.offset;
    }

    fn error(&self, kind: BlobErrorKind) -> BlobError {
        self.error_at(self.start, kind)
    }

    fn error_at(&self, offset: u64, kind: BlobErrorKind) -> BlobError {
        let error = BlobError::new(kind, offset);
        match (self.next, u32::try_from(self.elements.len())) {
            (Next::Count | Next::Padding, _) | (_, Err(_)) => error,
            (_, Ok(index)) => error.in_element(index),
        }
    }
}

/// The elements of a whole blob, of which there may be at most `most`.
///
/// # Errors
/// [`BlobError`].
pub fn decode_blob(blob: &[u8], most: u32) -> Result<Vec<Element>, BlobError> {
    let mut reader = BlobReader::new(most);
    reader.push(blob)?;
    reader.finish()
}
