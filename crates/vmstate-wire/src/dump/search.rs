//! The search for a reading: all ways through a description at once, one per place in the payload.

use vmstate_desc::{
    Codec, Description, DescriptionRef, DynState, Element, Field, Repeat, SaveState, Scalar,
    Scalars, Size, Value,
};

use super::{DumpDescription, DumpField};
use crate::codec::{MARKER_ABSENT, MARKER_PRESENT, SUBSECTION};

/// Steps before the search gives up.
const MAX_STEPS: u32 = 400_000;
/// Bytes of values that are kept, beyond some times the payload, before the search gives up.
const MAX_KEPT: usize = 16 << 20;
/// Places in the payload that are followed at a time.
const MAX_STATES: usize = 64;
/// Largest count that is believed.
const MAX_COUNT: u64 = 65_536;
/// How deep descriptions may be nested.
const MAX_DEPTH: u32 = 32;
/// Sizes of a timer object in memory, of which 8 bytes travel.
const TIMER_SIZES: [u64; 2] = [48, 56];

/// A reading of `payload` that uses all of it.
pub(super) fn read(d: &DumpDescription, version: u32, payload: &[u8]) -> Option<DynState> {
    let mut search = Search {
        bytes: payload,
        nodes: Vec::new(),
        steps: 0,
        room: payload.len().saturating_mul(4).saturating_add(MAX_KEPT),
        depth: 0,
    };
    search
        .description(d, version, 0, true)
        .into_iter()
        .find(|(end, ..)| *end == payload.len())
        .map(|(_, state, _)| state)
}

/// A field that was read, and what was read before it.
struct Node {
    before: Trail,
    name: String,
    element: Element,
    repeat: Repeat,
    value: Value,
}

/// The fields read so far, last first: a place in the list of nodes, which all readings share.
type Trail = Option<usize>;

/// The name as trailers write it: numbered where the description has it more than once.
fn numbered(d: &DumpDescription, name: &str, before: &[Field]) -> String {
    if d.fields.iter().filter(|f| f.name == name).count() < 2 {
        return name.to_owned();
    }
    let prefix = format!("{name}[");
    let k = before
        .iter()
        .filter(|f| f.name.starts_with(prefix.as_str()))
        .count();
    format!("{name}[{k}]")
}

/// A place in the payload, how it was reached, and how far-fetched that is: how often a count was guessed.
type Place = (usize, Trail, u32);

/// A place behind a description, its values, and how far-fetched they are.
type Reading = (usize, DynState, u32);

/// A place behind some elements, the elements, and how far-fetched they are.
type Elements = (usize, Vec<Value>, u32);

/// Keeps the least far-fetched way to each place.
fn keep<T>(ways: &mut Vec<T>, way: T, key: impl Fn(&T) -> (usize, u32)) {
    let (end, cost) = key(&way);
    let room = ways.len() < MAX_STATES;
    match ways.iter_mut().find(|w| key(w).0 == end) {
        Some(known) if key(known).1 <= cost => {}
        Some(known) => *known = way,
        None if room => ways.push(way),
        None => {}
    }
}

struct Search<'b> {
    bytes: &'b [u8],
    nodes: Vec<Node>,
    steps: u32,
    /// Bytes of values that may still be kept.
    room: usize,
    depth: u32,
}

impl Search<'_> {
    fn spend(&mut self) -> bool {
        self.spend_many(1)
    }

    fn spend_many(&mut self, steps: usize) -> bool {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(steps);
        self.steps <= MAX_STEPS
    }

    /// What was read before, for one of several ways on: a copy, which costs a step for each value, except for the last way.
    fn share<T: Clone>(&mut self, before: &mut Vec<T>, is_last: bool) -> Option<Vec<T>> {
        if is_last {
            return Some(std::mem::take(before));
        }
        self.spend_many(before.len()).then(|| before.clone())
    }

    fn with(
        &mut self,
        before: Trail,
        name: &str,
        element: Element,
        repeat: Repeat,
        value: Value,
    ) -> Trail {
        self.nodes.push(Node {
            before,
            name: name.to_owned(),
            element,
            repeat,
            value,
        });
        self.nodes.len().checked_sub(1)
    }

    fn with_children(
        &mut self,
        trail: Trail,
        field: &DumpField,
        child: &DumpDescription,
        (end, values, cost): Elements,
        array: bool,
        more: u32,
    ) -> Place {
        let element = Element::Struct(child_of(&values, child));
        let (repeat, value) = if array {
            let len = u32::try_from(values.len()).unwrap_or(0);
            (Repeat::Array(len), Value::List(values))
        } else {
            let value = values.into_iter().next().unwrap_or_default();
            (Repeat::Single, value)
        };
        let trail = self.with(trail, &field.name, element, repeat, value);
        (end, trail, cost.saturating_add(more))
    }

    /// The nodes of a trail, last first.
    fn walk(&self, trail: Trail) -> impl Iterator<Item = &Node> {
        let first = trail.and_then(|at| self.nodes.get(at));
        std::iter::successors(first, |node| self.nodes.get(node.before?))
    }

    /// The integers among the fields, each once, latest first: any of them may be a count.
    fn counts(&self, trail: Trail) -> Vec<u64> {
        let mut counts = Vec::new();
        for node in self.walk(trail) {
            if let Value::Scalar(value) = &node.value {
                let n = value.to_bits();
                if n <= MAX_COUNT && !counts.contains(&n) {
                    counts.push(n);
                }
            }
        }
        counts
    }

    fn state(&self, trail: Trail, d: &DumpDescription, subsections: Vec<DynState>) -> DynState {
        let mut read: Vec<&Node> = self.walk(trail).collect();
        read.reverse();
        let mut fields = Vec::with_capacity(read.len());
        for node in &read {
            let mut field = Field::new("", node.element.clone()).repeat(node.repeat.clone());
            field.name = numbered(d, &node.name, &fields).into();
            fields.push(field);
        }
        let description = Description {
            name: d.name.clone().into(),
            fields: fields.into(),
            subsections: subsections.iter().map(SaveState::description).collect(),
            ..Description::new("", d.version_id, 0)
        };
        let mut state = DynState::new(description);
        for (index, node) in read.iter().enumerate() {
            state.set_value(index, node.value.clone());
        }
        for (index, sub) in subsections.into_iter().enumerate() {
            state.set_subsection(index, Some(sub));
        }
        state
    }

    fn left(&self, at: usize) -> usize {
        self.bytes.len().saturating_sub(at)
    }

    fn description(
        &mut self,
        d: &DumpDescription,
        version: u32,
        start: usize,
        top: bool,
    ) -> Vec<Reading> {
        if self.depth >= MAX_DEPTH {
            return Vec::new();
        }
        self.depth = self.depth.saturating_add(1);
        let mut places: Vec<Place> = vec![(start, None, 0)];
        for (index, field) in d.fields.iter().enumerate() {
            let last = top && index.saturating_add(1) == d.fields.len();
            let mut next: Vec<Place> = Vec::new();
            for (at, trail, cost) in &places {
                for (end, trail, more) in self.field(field, version, *at, *trail, last) {
                    let place = (end, trail, cost.saturating_add(more));
                    keep(&mut next, place, |p| (p.0, p.2));
                }
            }
            places = next;
            if places.is_empty() {
                break;
            }
        }
        let mut found: Vec<Reading> = Vec::new();
        for (at, trail, cost) in places {
            for (end, subsections, more) in self.subsections(d, at) {
                let state = self.state(trail, d, subsections);
                let reading = (end, state, cost.saturating_add(more));
                keep(&mut found, reading, |r| (r.0, r.2));
            }
        }
        self.depth = self.depth.saturating_sub(1);
        found
    }

    /// The subsections behind the fields: a loader takes all that are there.
    fn subsections(&mut self, d: &DumpDescription, at: usize) -> Vec<(usize, Vec<DynState>, u32)> {
        let mut open = vec![(at, Vec::new(), 0_u32)];
        let mut done = Vec::new();
        while let Some((at, mut before, cost)) = open.pop() {
            if !self.spend() || done.len() >= MAX_STATES {
                break;
            }
            let Some((sub, version, body)) = self.subsection_at(d, at) else {
                done.push((at, before, cost));
                continue;
            };
            let mut ways = self
                .description(sub, version, body, false)
                .into_iter()
                .peekable();
            while let Some((end, state, more)) = ways.next() {
                let Some(mut all) = self.share(&mut before, ways.peek().is_none()) else {
                    break;
                };
                all.push(state);
                open.push((end, all, cost.saturating_add(more)));
            }
        }
        done
    }

    fn subsection_at<'d>(
        &self,
        d: &'d DumpDescription,
        at: usize,
    ) -> Option<(&'d DumpDescription, u32, usize)> {
        let (&mark, rest) = self.bytes.get(at..)?.split_first()?;
        if mark != SUBSECTION {
            return None;
        }
        let (&len, rest) = rest.split_first()?;
        let len = usize::from(len);
        let name = rest.get(..len)?;
        let version = rest.get(len..)?.first_chunk::<4>()?;
        let sub = d.subsections.iter().find(|s| s.name.as_bytes() == name)?;
        let body = at.saturating_add(len).saturating_add(6);
        Some((sub, u32::from_be_bytes(*version), body))
    }

    fn field(
        &mut self,
        field: &DumpField,
        version: u32,
        at: usize,
        trail: Trail,
        last: bool,
    ) -> Vec<Place> {
        let mut places = Vec::new();
        if !self.spend() {
            return places;
        }
        if field.field_exists || field.version_id <= version {
            match &field.description {
                Some(child) => self.children(field, child, at, trail, &mut places),
                None => self.leaf(field, at, trail, last, &mut places),
            }
        }
        if field.field_exists || field.version_id > version {
            places.push((at, trail, 0));
        }
        places
    }

    fn leaf(
        &mut self,
        field: &DumpField,
        at: usize,
        trail: Trail,
        last: bool,
        places: &mut Vec<Place>,
    ) {
        let counts = self.counts(trail);
        let rest = self.left(at) as u64;
        let mut put = |size: u64, count: u64, array: bool, cost: u32| {
            let length = usize::try_from(size.saturating_mul(count)).unwrap_or(usize::MAX);
            let Some(room) = self.room.checked_sub(length.min(self.left(at))) else {
                return;
            };
            let Some((element, repeat, value, length)) = self.value(field, at, size, count, array)
            else {
                return;
            };
            self.room = room;
            let end = at.saturating_add(length);
            places.push((
                end,
                self.with(trail, &field.name, element, repeat, value),
                cost,
            ));
        };
        if field.size == 0 {
            // A codec of the device's own, or a buffer whose size stands in another field.
            for count in counts {
                put(count, 1, false, 1);
            }
            if last {
                put(rest, 1, false, 1);
            }
            put(0, 1, false, 0);
            return;
        }
        if TIMER_SIZES.contains(&field.size) {
            put(8, u64::from(field.num.unwrap_or(1)), field.num.is_some(), 0);
        }
        put(
            field.size,
            u64::from(field.num.unwrap_or(1)),
            field.num.is_some(),
            u32::from(TIMER_SIZES.contains(&field.size)),
        );
        if field.num.is_none() {
            for count in counts {
                put(field.size, count, true, 1);
            }
        }
    }

    /// `count` values of `size` bytes each: integers where the size is one of an integer.
    fn value(
        &self,
        field: &DumpField,
        at: usize,
        size: u64,
        count: u64,
        array: bool,
    ) -> Option<(Element, Repeat, Value, usize)> {
        let length = usize::try_from(size.checked_mul(count)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let size = u32::try_from(size).ok()?;
        let codec = match size {
            1 => Codec::Uint8,
            2 => Codec::Uint16,
            4 => Codec::Uint32,
            8 => Codec::Uint64,
            _ => {
                let all = u32::try_from(length).ok()?;
                let value = Value::Scalars(Scalars::U8(bytes.to_vec()));
                let codec = Codec::Buffer(Size::Fixed(all));
                return Some((Element::Value(codec), Repeat::Single, value, length));
            }
        };
        if field.name == "unused" {
            let codec = Codec::Custom {
                name: "unused_buffer".into(),
                size: u32::try_from(length).ok(),
            };
            let value = Value::Bytes(bytes.to_vec());
            return Some((Element::Value(codec), Repeat::Single, value, length));
        }
        let ty = codec.scalar_type()?;
        let mut scalars = Scalars::new(ty);
        for chunk in bytes.chunks_exact(ty.size()) {
            let bits = chunk.iter().fold(0_u64, |bits, byte| {
                bits.checked_shl(8).unwrap_or(0) | u64::from(*byte)
            });
            scalars.push(Scalar::from_bits(ty, bits));
        }
        let element = Element::Value(codec);
        if !array {
            let value = scalars.get(0)?;
            return Some((element, Repeat::Single, Value::Scalar(value), length));
        }
        let repeat = Repeat::Array(u32::try_from(count).ok()?);
        Some((element, repeat, Value::Scalars(scalars), length))
    }

    fn children(
        &mut self,
        field: &DumpField,
        child: &DumpDescription,
        at: usize,
        trail: Trail,
        places: &mut Vec<Place>,
    ) {
        let array = field.num.is_some();
        let count = u64::from(field.num.unwrap_or(1));
        for elements in self.sequence(child, at, count, Marks::None) {
            places.push(self.with_children(trail, field, child, elements, array, 0));
        }
        let counts = self.counts(trail);
        if !array {
            for count in &counts {
                for elements in self.sequence(child, at, *count, Marks::None) {
                    places.push(self.with_children(trail, field, child, elements, true, 1));
                }
            }
            for elements in self.list(child, at) {
                places.push(self.with_children(trail, field, child, elements, true, 1));
            }
        }
        let counts = field.num.map(u64::from).into_iter().chain(counts);
        for count in counts {
            for marks in [Marks::Every, Marks::Absent] {
                for elements in self.sequence(child, at, count, marks) {
                    places.push(self.with_children(trail, field, child, elements, true, 1));
                }
            }
        }
    }

    /// `count` elements one after the other.
    fn sequence(
        &mut self,
        child: &DumpDescription,
        at: usize,
        count: u64,
        marks: Marks,
    ) -> Vec<Elements> {
        let mut open: Vec<Elements> = vec![(at, Vec::new(), 0)];
        for _ in 0..count {
            let mut next: Vec<Elements> = Vec::new();
            for (at, mut before, cost) in open {
                let mut ways = self.element(child, at, marks).into_iter().peekable();
                while let Some((end, value, more)) = ways.next() {
                    let Some(mut values) = self.share(&mut before, ways.peek().is_none()) else {
                        break;
                    };
                    values.push(value);
                    let elements = (end, values, cost.saturating_add(more));
                    keep(&mut next, elements, |e| (e.0, e.2));
                }
            }
            open = next;
            if open.is_empty() || !self.spend() {
                return Vec::new();
            }
        }
        open
    }

    fn element(
        &mut self,
        child: &DumpDescription,
        at: usize,
        marks: Marks,
    ) -> Vec<(usize, Value, u32)> {
        let after = at.saturating_add(1);
        let start = match (marks, self.bytes.get(at)) {
            (Marks::None, _) => at,
            (_, Some(&MARKER_ABSENT)) => return vec![(after, Value::Absent, 0)],
            (Marks::Every, Some(&MARKER_PRESENT)) => after,
            (Marks::Absent, Some(_)) => at,
            _ => return Vec::new(),
        };
        self.description(child, child.version_id, start, false)
            .into_iter()
            .map(|(end, state, cost)| (end, state.into(), cost))
            .collect()
    }

    /// A list: `01` and an element, …, `00`.
    fn list(&mut self, child: &DumpDescription, at: usize) -> Vec<Elements> {
        let mut values = Vec::new();
        let mut cost = 0_u32;
        let mut at = at;
        loop {
            let after = at.saturating_add(1);
            match self.bytes.get(at) {
                Some(0) => return vec![(after, values, cost)],
                Some(1) if self.spend() => {
                    let found = self.description(child, child.version_id, after, false);
                    // The first reading of each element: lists with several are not told apart.
                    let Some((end, state, more)) = found.into_iter().next() else {
                        return Vec::new();
                    };
                    values.push(state.into());
                    cost = cost.saturating_add(more);
                    at = end;
                }
                _ => return Vec::new(),
            }
        }
    }
}

/// Markers of an array of pointers.
#[derive(Clone, Copy)]
enum Marks {
    None,
    Every,
    Absent,
}

fn child_of(values: &[Value], child: &DumpDescription) -> DescriptionRef {
    values
        .iter()
        .find_map(|v| match v {
            Value::Struct(state) => Some(state.description()),
            _ => None,
        })
        .unwrap_or_else(|| {
            let mut d = Description::new("", child.version_id, 0);
            d.name = child.name.clone().into();
            d.into()
        })
}
