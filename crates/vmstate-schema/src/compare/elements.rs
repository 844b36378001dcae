//! What a field's bytes are: kinds, sizes, counts, embedded types.

use vmstate_desc::{
    Codec, Count, CountSource, ListKind, Pointers, Repeat, ScalarType, Size, ValueCheck,
};

use super::names::{bytes, count_text, element_text, field_text};
use super::rules::Rule;
use super::values::{Condition, Test};
use super::verdict::{Severity, Verdicts};
use super::walk::{Context, Findings, Found, Versions, Walk};
use crate::build::wire_size;
use crate::model::{Element, Field, Key, Schema, TypeId};

use Severity::{Break, Note, Ok, Suspect, Value};

/// A difference of the field itself, without a path below it.
pub(super) fn found(rule: Rule, from: String, to: String, verdicts: [Severity; 4]) -> Found {
    Found {
        rule,
        path: String::new(),
        from,
        to,
        verdicts: Verdicts::new(verdicts),
        test: None,
    }
}

impl Walk<'_> {
    pub(super) fn content(
        &mut self,
        from: &Field,
        to: &Field,
        context: Context,
        findings: &mut Findings,
    ) {
        let texts = || (field_text(self.from, from), field_text(self.to, to));
        match (&from.element, &to.element) {
            (Element::Memory { .. }, _) | (_, Element::Memory { .. }) => {
                if let Some((rule, verdicts)) = memory(from, to) {
                    let (a, b) = texts();
                    findings.push(found(rule, a, b, verdicts));
                }
            }
            (Element::Value(a), Element::Value(b)) => {
                let difference = codecs(a, b, from, to);
                if let Some((rule, verdicts)) = difference {
                    let (old, new) = texts();
                    findings.push(Found {
                        test: codec_test(rule, b).map(Test::new),
                        ..found(rule, old, new, verdicts)
                    });
                }
                // Lengths of different things mean nothing, and blocks of equal length have many ways to say it.
                let blocks = is_block(a) && is_block(b) && bytes(from).is_some();
                let equal = blocks && bytes(from) == bytes(to);
                if !equal && !matches!(difference, Some((Rule::C10 | Rule::C31, _))) {
                    self.lengths(from, to, findings);
                }
            }
            (Element::List(a, _), Element::List(b, _)) if a != b => {
                let (forward, backward) = (framing(*a, *b), framing(*b, *a));
                if forward.max(backward) > Ok {
                    let (a, b) = texts();
                    findings.push(found(Rule::C28, a, b, [forward, backward, Ok, Ok]));
                }
            }
            (Element::Variant { .. }, Element::Variant { .. }) => {
                self.variants(from, to, findings);
            }
            (Element::Struct(_), Element::Variant { .. }) if self.was_seen().0 => {
                self.seen_cases(from, to, true, findings);
            }
            (Element::Variant { .. }, Element::Struct(_)) if self.was_seen().1 => {
                self.seen_cases(from, to, false, findings);
            }
            (a, b) if family(a) == family(b) => {
                self.lengths(from, to, findings);
                self.keys(a, b, context, findings);
            }
            (a, b) => {
                let lists = ["list", "tree"];
                let rule = if lists.contains(&family(a)) && lists.contains(&family(b)) {
                    Rule::C28
                } else if is_opaque(a) || is_opaque(b) {
                    Rule::C31
                } else {
                    Rule::C10
                };
                let verdicts = match rule {
                    Rule::C28 => [Break, Break, Ok, Ok],
                    // Whether the bytes are the same cannot be seen.
                    Rule::C31 => [Suspect, Suspect, Note, Note],
                    _ => [Break; 4],
                };
                let (a, b) = texts();
                findings.push(found(rule, a, b, verdicts));
            }
        }
        self.children(from, to, findings);
    }

    /// Embedded types, and every other shape that their elements were seen to have.
    fn children(&mut self, from: &Field, to: &Field, findings: &mut Findings) {
        let (Some(a), Some(b)) = (from.element.child(), to.element.child()) else {
            return;
        };
        let mut best = self.embedded(from, a, to, b);
        // Of elements that differ in shape each goes with the shape that suits it best.
        let many = !from.variants.is_empty() || !to.variants.is_empty();
        if many {
            let mut all = Findings::default();
            for a in std::iter::once(a).chain(from.variants.iter().copied()) {
                let suits = std::iter::once(b)
                    .chain(to.variants.iter().copied())
                    .map(|b| self.embedded(from, a, to, b))
                    .min_by_key(|findings| findings.worst().worst());
                if let Some(suits) = suits {
                    all.below("", &suits);
                }
            }
            best = std::rc::Rc::new(all);
        }
        for part in &best.list {
            findings.push(part.clone());
        }
        findings.left_out = findings.left_out.saturating_add(best.left_out);
    }

    pub(super) fn embedded(
        &mut self,
        from: &Field,
        a: TypeId,
        to: &Field,
        b: TypeId,
    ) -> std::rc::Rc<Findings> {
        let own = |schema: &Schema, id: TypeId| schema.get(id).map_or(0, |ty| ty.version_id);
        let (old, new) = (own(self.from, a), own(self.to, b));
        let inner = Context {
            forward: Versions {
                writer: written(from, old),
                reader: read(to, new),
            },
            backward: Versions {
                writer: written(to, new),
                reader: read(from, old),
            },
            travels: false,
        };
        self.types(a, b, inner)
    }

    /// Keys of trees.
    fn keys(&mut self, a: &Element, b: &Element, context: Context, findings: &mut Findings) {
        let (Element::Tree { key: a_key, .. }, Element::Tree { key: b_key, .. }) = (a, b) else {
            return;
        };
        match (a_key, b_key) {
            (Key::Direct, Key::Direct) => {}
            (Key::Struct(x), Key::Struct(y)) => {
                let inner = self.types(
                    *x,
                    *y,
                    Context {
                        travels: false,
                        ..context
                    },
                );
                findings.below("key", &inner);
            }
            _ => {
                let (a, b) = (element_text(self.from, a), element_text(self.to, b));
                findings.push(found(Rule::C28, a, b, [Break; 4]));
            }
        }
    }

    /// Numbers of elements, and markers.
    fn lengths(&self, from: &Field, to: &Field, findings: &mut Findings) {
        let (seen_from, seen_to) = self.was_seen();
        let texts = || (field_text(self.from, from), field_text(self.to, to));
        let mut tell = |rule, verdicts, condition: Option<Condition>| {
            let (a, b) = texts();
            findings.push(Found {
                test: condition.map(Test::new),
                ..found(rule, a, b, verdicts)
            });
        };
        match (length(from), length(to)) {
            (Length::Fixed(a), Length::Fixed(b)) if a == b => {}
            (Length::Fixed(a), Length::Fixed(b)) => {
                // One side's bitmap may end inside the word in which the other's does.
                if is_bitmap(from) && is_bitmap(to) && a.div_ceil(64) == b.div_ceil(64) {
                    let bits = Some(Condition::BitsBelow(b));
                    tell(Rule::C29, [Suspect, Suspect, Value, Value], bits);
                } else {
                    let resized = |reader: &Field, n: u64| match reader.resize_max {
                        // What the reader has beyond the writer's stays at its default.
                        Some(max) if n <= u64::from(max) => Ok,
                        _ => Break,
                    };
                    let (forward, backward) = (resized(to, a), resized(from, b));
                    tell(Rule::C12, [Break, Break, forward, backward], None);
                }
            }
            (Length::Fixed(n), Length::Counted(count)) => {
                let (q, b) = counted(n, count, seen_from, to.resize_max);
                if q != Ok || !seen_from {
                    tell(Rule::C13, [q, q, b, Value], None);
                }
            }
            (Length::Counted(count), Length::Fixed(n)) => {
                let (q, b) = counted(n, count, seen_to, from.resize_max);
                if q != Ok || !seen_to {
                    let exactly = (!is_bitmap(from)).then_some(Condition::Exactly(n));
                    tell(Rule::C13, [q, q, Value, b], exactly);
                }
            }
            (Length::Counted(a), Length::Counted(b)) => {
                if let Some((rule, verdicts)) = counts(a, b, from, to) {
                    let (a, b) = (count_text(a), count_text(b));
                    let (a, b, test) = if rule == Rule::C35 {
                        let (a, b) = texts();
                        (a, b, most(to).map(Test::new))
                    } else {
                        (a, b, None)
                    };
                    findings.push(Found {
                        test,
                        ..found(rule, a, b, verdicts)
                    });
                    return;
                }
            }
        }
        if !seen_from && !seen_to && from.pointers != to.pointers {
            let (a, b) = texts();
            let (rule, verdicts) = match (from.pointers, to.pointers) {
                (Pointers::No, Pointers::MarkAbsent) | (Pointers::MarkAbsent, Pointers::No) => {
                    (Rule::C26, [Value; 4])
                }
                (Pointers::MarkEvery, _) => (Rule::C27, [Break, Break, Value, Ok]),
                _ => (Rule::C27, [Break, Break, Ok, Value]),
            };
            let test = (to.pointers == Pointers::No).then(|| Test::new(Condition::NoneAbsent));
            findings.push(Found {
                test,
                ..found(rule, a, b, verdicts)
            });
        }
    }
}

/// What numbers and lengths must be like to be loaded with this codec.
fn codec_test(rule: Rule, reader: &Codec) -> Option<Condition> {
    match (rule, reader) {
        (Rule::C35, Codec::ByteArray { max }) => Some(Condition::AtMost((*max).into())),
        (Rule::C24, codec) => match codec.value_check() {
            ValueCheck::Equal => Some(Condition::EqualsOwn),
            ValueCheck::LessOrEqual => Some(Condition::UpToOwn),
            _ => None,
        },
        (Rule::C09 | Rule::C11, codec) => {
            let (size, signed) = integer(codec)?;
            let bits = u32::try_from(size).ok()?.checked_mul(8)?;
            let numbers = 1_i128.checked_shl(bits)?;
            let half = numbers >> 1;
            Some(if signed {
                Condition::Range {
                    minimum: half.checked_neg()?,
                    maximum: half.checked_sub(1)?,
                }
            } else {
                Condition::Range {
                    minimum: 0,
                    maximum: numbers.checked_sub(1)?,
                }
            })
        }
        _ => None,
    }
}

/// The most elements that a reader takes.
fn most(reader: &Field) -> Option<Condition> {
    let Length::Counted(count) = length(reader) else {
        return None;
    };
    let most = u64::from(reader.resize_max.unwrap_or(0).max(count.max));
    // What travels are words.
    let most = if is_bitmap(reader) {
        most.checked_next_multiple_of(64)?
    } else {
        most
    };
    Some(Condition::AtMost(most))
}

/// The version that is written for what a field embeds, whose own version is `own`.
fn written(field: &Field, own: u32) -> u32 {
    match field.element {
        Element::VersionedStruct(_, version) => version,
        _ => own,
    }
}

/// The version that is read: temporaries and elements of lists and trees at the field's.
fn read(field: &Field, own: u32) -> u32 {
    match field.element {
        Element::VersionedStruct(_, version) => version,
        Element::Tmp(_) | Element::List(..) | Element::Tree { .. } => field.version_id,
        _ => own,
    }
}

/// Whether one list's bytes are read rightly as another's.
fn framing(writer: ListKind, reader: ListKind) -> Severity {
    let bytes = |kind| match kind {
        ListKind::QTailq | ListKind::QList => Some((1, 0, true)),
        ListKind::Marked {
            more,
            stop,
            lenient,
        } => Some((more, stop, lenient)),
        _ => None,
    };
    match (bytes(writer), bytes(reader)) {
        (Some((more, stop, _)), Some((expected, end, lenient)))
            if stop == end && (more == expected || (lenient && more != end)) =>
        {
            Ok
        }
        _ => Break,
    }
}

/// Elements of one family have the same bytes around what they embed.
fn family(element: &Element) -> &'static str {
    match element {
        Element::Struct(_) | Element::VersionedStruct(..) | Element::Tmp(_) => "structure",
        Element::List(..) => "list",
        Element::Tree { .. } => "tree",
        Element::Variant { .. } => "variant",
        Element::Value(_) | Element::Memory { .. } => "value",
    }
}

const fn is_opaque(element: &Element) -> bool {
    matches!(element, Element::Value(Codec::Custom { .. }))
}

fn is_bitmap(field: &Field) -> bool {
    matches!(field.element, Element::Value(Codec::Bitmap(_)))
}

/// How many elements, bytes of a buffer, bits of a bitmap.
enum Length<'f> {
    Fixed(u64),
    Counted(&'f Count),
}

fn length(field: &Field) -> Length<'_> {
    match (&field.repeat, &field.element) {
        (Repeat::Array(n), _) => Length::Fixed((*n).into()),
        (Repeat::Counted(count), _) => Length::Counted(count),
        (_, Element::Value(Codec::Buffer(size) | Codec::Bitmap(size))) => match size {
            Size::Counted(count) => Length::Counted(count),
            Size::Fixed(n) => Length::Fixed((*n).into()),
            _ => Length::Fixed(1),
        },
        (_, Element::Value(Codec::Unused(n))) => Length::Fixed((*n).into()),
        _ => Length::Fixed(1),
    }
}

/// A fixed number against a count, in QEMU streams and in BER. `seen`: the fixed number is one that was counted; `resize_max`: of
/// the side that counts.
fn counted(n: u64, count: &Count, seen: bool, resize_max: Option<u32>) -> (Severity, Severity) {
    let within = n <= u64::from(count.max);
    let qemu = match within {
        false => Break,
        true if seen => Ok,
        true => Value,
    };
    let ber = match (&count.source, resize_max) {
        // A count that does not travel may be what the other side has fixed; or any number does.
        (CountSource::Device(_), Some(max)) if n <= u64::from(max) => Ok,
        (CountSource::Device(_), Some(_)) => Break,
        _ if !within => Value,
        (CountSource::Device(_), None) if !seen => Value,
        _ => Ok,
    };
    (qemu, ber)
}

fn counts(a: &Count, b: &Count, from: &Field, to: &Field) -> Option<(Rule, [Severity; 4])> {
    if a.multiply != b.multiply {
        return Some((Rule::C14, [Break, Break, Value, Value]));
    }
    let on_wire = |count: &Count| matches!(count.source, CountSource::Field(_));
    if on_wire(a) != on_wire(b) {
        return Some((Rule::C14, [Value; 4]));
    }
    // Another name for the counter is a rename, and is told where the counter stands.
    if a.max != b.max {
        let lowered = |reader: &Count, writer: &Count, field: &Field| {
            let accepted = field.resize_max.unwrap_or(0).max(reader.max);
            if accepted < writer.max { Value } else { Ok }
        };
        let forward = lowered(b, a, to);
        let backward = lowered(a, b, from);
        return Some((Rule::C35, [forward, backward, forward, backward]));
    }
    None
}

/// What integers are.
fn integer(codec: &Codec) -> Option<(usize, bool)> {
    Some(match codec.scalar_type()? {
        ScalarType::U8 => (1, false),
        ScalarType::U16 => (2, false),
        ScalarType::U32 => (4, false),
        ScalarType::U64 => (8, false),
        ScalarType::I8 => (1, true),
        ScalarType::I16 => (2, true),
        ScalarType::I32 => (4, true),
        ScalarType::I64 => (8, true),
        _ => return None,
    })
}

fn is_block(codec: &Codec) -> bool {
    match codec {
        Codec::Buffer(_) | Codec::Unused(_) => true,
        Codec::Custom { name, .. } => name == "unused_buffer" || name == "buffer",
        _ => false,
    }
}

/// Two values with codecs.
fn codecs(a: &Codec, b: &Codec, from: &Field, to: &Field) -> Option<(Rule, [Severity; 4])> {
    if let (Some((size, signed)), Some((new_size, new_signed))) = (integer(a), integer(b)) {
        let sizes = size.cmp(&new_size);
        let order = a.is_big_endian() == b.is_big_endian() || size == 1;
        return match sizes {
            std::cmp::Ordering::Less => Some((Rule::C08, [Break, Break, Ok, Value])),
            std::cmp::Ordering::Greater => Some((Rule::C09, [Break, Break, Value, Ok])),
            _ if !order => Some((Rule::C10, [Break, Break, Ok, Ok])),
            _ if signed != new_signed => Some((Rule::C11, [Suspect, Suspect, Value, Value])),
            _ => checks(a, b).or_else(|| {
                let timers = (*a == Codec::Timer) != (*b == Codec::Timer);
                timers.then_some((Rule::C30, [Ok; 4]))
            }),
        };
    }
    let same = match (a, b) {
        (Codec::Buffer(_), Codec::Buffer(_))
        | (Codec::Bitmap(_), Codec::Bitmap(_))
        | (Codec::Unused(_), Codec::Unused(_))
        | (Codec::Capability, Codec::Capability) => true,
        (Codec::ByteArray { max }, Codec::ByteArray { max: new }) => {
            let lowered = |reader: &u32, writer: &u32| if reader < writer { Value } else { Ok };
            let (forward, backward) = (lowered(new, max), lowered(max, new));
            return (max != new).then_some((Rule::C35, [forward, backward, forward, backward]));
        }
        (
            Codec::Custom { name, size },
            Codec::Custom {
                name: new,
                size: new_size,
            },
        ) => {
            return custom(name == new, *size, *new_size);
        }
        (a, b) => a == b,
    };
    if same {
        return None;
    }
    if is_block(a) && is_block(b) {
        // A different number of bytes is told as such.
        return (bytes(from) == bytes(to)).then_some((Rule::C30, [Ok; 4]));
    }
    let opaque = |codec: &Codec| matches!(codec, Codec::Custom { .. });
    let equal = bytes(from).is_some() && bytes(from) == bytes(to);
    if opaque(a) || opaque(b) {
        let qemu = match (bytes(from), bytes(to)) {
            (Some(a), Some(b)) if a != b => Break,
            _ => Suspect,
        };
        return Some((Rule::C31, [qemu, qemu, Note, Note]));
    }
    let qemu = if equal { Suspect } else { Break };
    Some((Rule::C10, [qemu, qemu, Break, Break]))
}

/// Two codecs of devices' own.
fn custom(
    same_name: bool,
    size: Option<u32>,
    new_size: Option<u32>,
) -> Option<(Rule, [Severity; 4])> {
    match (size, new_size) {
        (Some(a), Some(b)) if a != b => {
            // Of some, the size is only what one instance had.
            let qemu = if same_name { Suspect } else { Break };
            Some((Rule::C10, [qemu, qemu, qemu, qemu]))
        }
        _ if same_name => None,
        _ => Some((Rule::C10, [Suspect, Suspect, Suspect, Suspect])),
    }
}

/// Checks that loading makes.
fn checks(a: &Codec, b: &Codec) -> Option<(Rule, [Severity; 4])> {
    let (old, new) = (a.value_check(), b.value_check());
    if old == new {
        return None;
    }
    let checked = |check| if check == ValueCheck::None { Ok } else { Value };
    let (forward, backward) = (checked(new), checked(old));
    Some((Rule::C24, [forward, backward, forward, backward]))
}

/// Where at least one side says only what a field takes in memory.
fn memory(from: &Field, to: &Field) -> Option<(Rule, [Severity; 4])> {
    let suspect = |rule| Some((rule, [Suspect, Suspect, Suspect, Suspect]));
    match (&from.element, &to.element) {
        (
            Element::Memory { size, num, child },
            Element::Memory {
                size: new_size,
                num: new_num,
                child: new_child,
            },
        ) => {
            if child.is_some() != new_child.is_some() {
                return suspect(Rule::C10);
            }
            if let (Some(n), Some(new)) = (num, new_num)
                && n != new
            {
                return Some((Rule::C12, [Break, Break, Break, Break]));
            }
            // What an object takes in memory, with all that does not travel, means nothing.
            if child.is_some() || size == new_size || (from.is_pad() && to.is_pad()) {
                return (from.is_pad() && size != new_size)
                    .then_some((Rule::C12, [Break, Break, Ok, Ok]));
            }
            resized(*size, *new_size)
        }
        (Element::Memory { size, num, child }, known) => {
            let known_field = to;
            on_wire(*size, *num, child.is_some(), known, known_field, true)
        }
        (known, Element::Memory { size, num, child }) => {
            on_wire(*size, *num, child.is_some(), known, from, false)
        }
        _ => None,
    }
}

/// Sizes that numbers have.
const NUMBERS: [u64; 4] = [1, 2, 4, 8];

/// Two sizes in memory of something without a description.
fn resized(size: u64, new: u64) -> Option<(Rule, [Severity; 4])> {
    if NUMBERS.contains(&size) && NUMBERS.contains(&new) {
        return Some(if size < new {
            (Rule::C08, [Break, Break, Ok, Value])
        } else {
            (Rule::C09, [Break, Break, Value, Ok])
        });
    }
    // A buffer of another length, or an object of which only a part travels.
    Some((Rule::C12, [Suspect, Suspect, Suspect, Suspect]))
}

/// A size in memory against what is known to travel.
fn on_wire(
    size: u64,
    num: Option<u32>,
    has_child: bool,
    known: &Element,
    field: &Field,
    memory_is_from: bool,
) -> Option<(Rule, [Severity; 4])> {
    let suspect = |rule| Some((rule, [Suspect, Suspect, Suspect, Suspect]));
    let Element::Value(codec) = known else {
        return if has_child { None } else { suspect(Rule::C10) };
    };
    if has_child {
        return suspect(Rule::C10);
    }
    if let (Some(n), Repeat::Array(len)) = (num, &field.repeat)
        && n != *len
        && codec.scalar_type().is_some()
    {
        return Some((Rule::C12, [Break, Break, Break, Break]));
    }
    // A timer, a bitmap and what a device encodes itself are other objects in memory; a count of bytes is not the dump's.
    let plain = integer(codec).is_some() || *codec == Codec::Bool;
    if *codec == Codec::Timer || size == 0 {
        return None;
    }
    if plain {
        let wire = wire_size(codec)?;
        return match (wire == size, NUMBERS.contains(&size)) {
            (true, _) => None,
            (false, true) => {
                let (old, new) = if memory_is_from {
                    (size, wire)
                } else {
                    (wire, size)
                };
                resized(old, new)
            }
            (false, false) => suspect(Rule::C10),
        };
    }
    if is_block(codec) {
        let total = size.checked_mul(num.map_or(1, u64::from))?;
        return match bytes(field) {
            Some(wire) if wire != total && wire != size && total > 8 => suspect(Rule::C12),
            _ => None,
        };
    }
    None
}
