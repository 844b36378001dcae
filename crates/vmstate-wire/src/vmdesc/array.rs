//! Entries of arrays: which elements each generation describes, and how.

use vmstate_desc::{Element, Field, Pointers};

use super::{VmdescDialect, element_size};

/// What is known of one slot of an array.
#[derive(Debug, Clone)]
struct Slot {
    absent: bool,
    /// Bytes of the element.
    size: usize,
    /// The entry from `type` on, where it was collected.
    text: Option<String>,
}

/// The slots of an array while it is being encoded.
#[derive(Debug)]
pub(super) struct Slots {
    count: usize,
    compressible: bool,
    offset: usize,
    pointers: Pointers,
    dialect: VmdescDialect,
    slots: Vec<Slot>,
    /// Bytes of the first element, where elements differ in length.
    first: Option<usize>,
    /// The element that is being walked: byte offset, and where its text begins.
    open: Option<(usize, usize)>,
}

/// One object in the list of fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) array_len: Option<usize>,
    pub(super) index: Option<usize>,
    /// From `type` on, up to `size`; `None`: the field's own type.
    pub(super) text: Option<String>,
    pub(super) size: usize,
    pub(super) is_marker: bool,
}

impl Slots {
    pub(super) const fn new(
        count: usize,
        compressible: bool,
        offset: usize,
        pointers: Pointers,
        dialect: VmdescDialect,
    ) -> Self {
        Self {
            count,
            compressible,
            offset,
            pointers,
            dialect,
            slots: Vec::new(),
            first: None,
            open: None,
        }
    }

    /// A described element begins. `false` if no generation will show it.
    pub(super) fn begin(
        &mut self,
        index: usize,
        present: bool,
        offset: usize,
        text: usize,
    ) -> bool {
        let before = self.slots.last().map(|s| s.absent);
        let starts_run = before.is_none_or(|absent| absent == present);
        let wanted = if self.compressible {
            // 7.2 looks at the first element only.
            index == 0 || (starts_run && self.dialect != VmdescDialect::V7_2)
        } else {
            true
        };
        self.slots.push(Slot {
            absent: !present,
            size: 0,
            text: None,
        });
        if wanted {
            self.open = Some((offset, text));
        }
        wanted
    }

    /// The element that [`Slots::begin`] opened is over: its text moves from the trailer into the slot.
    pub(super) fn end(&mut self, offset: usize, text: &mut String) {
        let (Some((start, from)), Some(slot)) = (self.open.take(), self.slots.last_mut()) else {
            return;
        };
        slot.size = offset.saturating_sub(start);
        if from <= text.len() {
            slot.text = Some(text.split_off(from));
        }
    }

    /// An element with a length of its own ends at `offset`.
    pub(super) fn measured(&mut self, offset: usize) {
        self.first.get_or_insert(offset.saturating_sub(self.offset));
    }

    pub(super) fn absent(&mut self, _index: usize) {
        self.slots.push(Slot {
            absent: true,
            size: 1,
            text: None,
        });
    }

    pub(super) fn scalar(&mut self, _index: usize, size: usize) {
        self.slots.push(Slot {
            absent: false,
            size,
            text: None,
        });
    }

    /// The entries to write, in order.
    pub(super) fn entries(
        mut self,
        end: usize,
        field: &Field,
        dialect: VmdescDialect,
    ) -> Vec<Entry> {
        if self.count == 0 {
            return Vec::new();
        }
        if self.slots.is_empty() {
            return self.scalar_entries(end, field, dialect);
        }
        self.count = self.slots.len();
        if self.pointers == Pointers::MarkEvery {
            return self.marked_entries(dialect);
        }
        match dialect {
            VmdescDialect::V7_2 => self.entries_7_2(field),
            VmdescDialect::V10_0 => self.entries_10_0(dialect),
            VmdescDialect::V11_1 => self.entries_11_1(dialect),
        }
    }

    /// An array of scalars in place: all elements have one size, and nothing was collected.
    fn scalar_entries(&self, end: usize, field: &Field, dialect: VmdescDialect) -> Vec<Entry> {
        let size = match element_size(field) {
            0 => self.first.unwrap_or_else(|| {
                end.saturating_sub(self.offset)
                    .checked_div(self.count)
                    .unwrap_or(0)
            }),
            size => size,
        };
        let entry = |array_len, index| Entry {
            array_len,
            index,
            text: None,
            size,
            is_marker: false,
        };
        if self.count == 1 {
            return vec![entry(None, None)];
        }
        if self.compressible {
            return vec![entry(Some(self.count), None)];
        }
        (0..self.count)
            .map(|i| entry(None, plain_index(i, self.count, dialect)))
            .collect()
    }

    fn marker(dialect: VmdescDialect) -> Entry {
        Entry {
            array_len: None,
            index: None,
            text: Some(format!("\"type\": \"{}\"", dialect.marker_type())),
            size: 1,
            is_marker: true,
        }
    }

    fn entry(slot: &Slot, dialect: VmdescDialect) -> Entry {
        if slot.absent {
            return Self::marker(dialect);
        }
        Entry {
            array_len: None,
            index: None,
            text: slot.text.clone(),
            size: slot.size,
            is_marker: false,
        }
    }

    /// A marker's entry before every element, never compressed.
    fn marked_entries(&self, dialect: VmdescDialect) -> Vec<Entry> {
        let mut entries = Vec::new();
        for slot in &self.slots {
            entries.push(Self::marker(dialect));
            if !slot.absent {
                entries.push(Self::entry(slot, dialect));
            }
        }
        entries
    }

    /// 7.2 describes an absent element as one of the field's own type, of size 1.
    fn entries_7_2(&self, field: &Field) -> Vec<Entry> {
        let entry = |slot: &Slot| {
            let text = match (&slot.text, slot.absent, &field.element) {
                (_, true, Element::Struct(_)) => {
                    Some("\"type\": \"struct\", \"struct\": {}".to_owned())
                }
                (text, ..) => text.clone(),
            };
            Entry {
                text,
                is_marker: slot.absent,
                ..Self::entry(slot, VmdescDialect::V7_2)
            }
        };
        let n = self.slots.len();
        if self.compressible {
            let mut first: Vec<Entry> = self.slots.first().map(entry).into_iter().collect();
            if let (Some(first), true) = (first.first_mut(), n > 1) {
                first.array_len = Some(n);
            }
            return first;
        }
        let mut entries: Vec<Entry> = self.slots.iter().map(entry).collect();
        if n > 1 {
            for (i, entry) in entries.iter_mut().enumerate() {
                entry.index = Some(i);
            }
        }
        entries
    }

    /// Distance from `i` to the next slot of the other kind, or to the end.
    fn run(&self, i: usize) -> usize {
        let rest = self.slots.get(i..).unwrap_or_default();
        let kind = rest.first().is_some_and(|s| s.absent);
        rest.iter().take_while(|s| s.absent == kind).count()
    }

    fn entries_10_0(&self, dialect: VmdescDialect) -> Vec<Entry> {
        let n = self.slots.len();
        let (mut before, mut on) = (false, true);
        let mut entries = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let mut len = n.saturating_sub(i);
            if slot.absent != before {
                before = slot.absent;
                on = true;
                len = self.run(i);
            }
            if on {
                let mut entry = Self::entry(slot, dialect);
                if len > 1 {
                    // The entry of a marker can always stand for several.
                    if self.compressible || slot.absent {
                        entry.array_len = Some(len);
                    } else {
                        entry.index = Some(i);
                    }
                }
                entries.push(entry);
            }
            if self.compressible {
                on = false;
            }
        }
        entries
    }

    fn entries_11_1(&self, dialect: VmdescDialect) -> Vec<Entry> {
        let n = self.slots.len();
        let (mut before, mut on) = (false, true);
        let mut entries = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let mut len = if self.compressible {
                n.saturating_sub(i)
            } else {
                1
            };
            if len > 1 && slot.absent != before {
                before = slot.absent;
                on = true;
                len = self.run(i);
            }
            if on {
                let mut entry = Self::entry(slot, dialect);
                entry.array_len = (len > 1).then_some(len);
                entries.push(entry);
            }
            if len > 1 {
                on = false;
            }
        }
        entries
    }
}

/// The `index` of element `i` of an uncompressed array of `n` scalars.
fn plain_index(i: usize, n: usize, dialect: VmdescDialect) -> Option<usize> {
    match dialect {
        VmdescDialect::V7_2 => Some(i),
        VmdescDialect::V10_0 if i.saturating_add(1) < n => Some(i),
        VmdescDialect::V10_0 | VmdescDialect::V11_1 => None,
    }
}
