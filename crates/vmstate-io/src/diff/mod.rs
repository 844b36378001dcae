//! Comparing two streams: what the machine is, its guest RAM block by block, its devices field by field.
//!
//! How a stream carries its content does not matter: the order of page records, rounds, packages, channels, commands and the
//! form of the trailer may differ. What it carries does.

mod content;
mod fields;

use std::collections::{BTreeSet, HashMap, VecDeque};

use vmstate_desc::{Field, Scalar, Value};
use vmstate_wire::stream::Configuration;

use crate::inspect::{Block, Report, Section};

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// `A` or `B`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// How guest RAM is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RamComparison {
    /// Not at all.
    None,
    /// Names, lengths and order of the blocks.
    Summary,
    /// Also their final content, where both reports have digests.
    #[default]
    Digest,
}

/// Something in which two streams differ.
#[derive(Debug)]
#[non_exhaustive]
pub enum Difference<'r> {
    /// The machine: its name, its page size, its UUID.
    Machine {
        /// `machine`, `page_size`, `uuid`.
        what: &'static str,
        /// What A has.
        a: Option<String>,
        /// What B has.
        b: Option<String>,
    },
    /// A capability that only one of the two declares.
    Capability {
        /// Who.
        only_in: Side,
        /// Its name.
        name: String,
    },
    /// A section that only one of the two has.
    Section {
        /// Who.
        only_in: Side,
        /// The section.
        section: &'r Section,
    },
    /// A section's header.
    Header {
        /// The section, as A has it.
        section: &'r Section,
        /// `version_id`, `kind`, `length`.
        what: &'static str,
        /// What A has.
        a: String,
        /// What B has.
        b: String,
    },
    /// A field of a section, an element of it, or the whole content.
    Field {
        /// The section, as A has it.
        section: &'r Section,
        /// Where in it: `queues[3]/size`. Empty: the whole content.
        path: &'r str,
        /// What A has.
        a: Operand<'r>,
        /// What B has.
        b: Operand<'r>,
    },
    /// Two sections, blocks or fields in another order.
    Order {
        /// `section`, `block`, or the section whose fields these are.
        of: String,
        /// What comes first in A, and second in B.
        first: String,
        /// What comes second in A, and first in B.
        second: String,
    },
    /// A RAM block that only one of the two has.
    Block {
        /// Who.
        only_in: Side,
        /// The block.
        block: &'r Block,
    },
    /// What a RAM block is.
    BlockShape {
        /// The block, as A has it.
        block: &'r Block,
        /// `used_length`, `page_size`, `ignored`.
        what: &'static str,
        /// What A has.
        a: Option<u64>,
        /// What B has.
        b: Option<u64>,
    },
    /// The final content of a RAM block.
    BlockContent {
        /// The block in A.
        a: &'r Block,
        /// The block in B.
        b: &'r Block,
    },
}

/// What one of the two streams has at a place.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Operand<'r> {
    /// Nothing.
    Missing,
    /// A value of a field.
    Value(&'r Field, &'r Value),
    /// A scalar of a field, or of an array.
    Scalar(&'r Field, Scalar),
    /// A subsection.
    Subsection,
    /// The number of elements.
    Length(usize),
    /// The type of a field whose values are equal.
    Type(&'r str),
    /// The version of an embedded description.
    Version(u32),
    /// Bytes: a buffer, or content that nothing describes.
    Bytes(&'r [u8]),
    /// The number of chunks of dirty bitmaps.
    Chunks(usize),
}

/// What two streams were compared by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Sections that both have.
    pub sections: u64,
    /// RAM blocks that both have.
    pub blocks: u64,
    /// RAM blocks whose content was compared.
    pub contents: u64,
    /// Differences that were found.
    pub differences: u64,
}

/// Compares two reports and tells each difference to `tell`.
pub fn compare(
    a: &Report,
    b: &Report,
    ram: RamComparison,
    tell: &mut dyn FnMut(&Difference<'_>),
) -> Compared {
    let mut comparison = Comparison {
        tell,
        compared: Compared::default(),
    };
    comparison.machine(a, b);
    if ram != RamComparison::None {
        comparison.blocks(a, b, ram);
    }
    comparison.sections(a, b);
    comparison.compared
}

struct Comparison<'t> {
    tell: &'t mut dyn FnMut(&Difference<'_>),
    compared: Compared,
}

impl Comparison<'_> {
    fn tell(&mut self, difference: &Difference<'_>) {
        self.compared.differences += 1;
        (self.tell)(difference);
    }

    fn machine(&mut self, a: &Report, b: &Report) {
        let machine = |r: &Report| r.configuration.as_ref().map(|c| c.machine.to_string());
        let uuid = |r: &Report| {
            let uuid = r.configuration.as_ref()?.uuid()?;
            Some(format!("{:032x}", u128::from_be_bytes(uuid)))
        };
        let page_size = |r: &Report| Some(r.page_size.to_string());
        for (what, a, b) in [
            ("machine", machine(a), machine(b)),
            ("uuid", uuid(a), uuid(b)),
            ("page_size", page_size(a), page_size(b)),
        ] {
            if a != b {
                self.tell(&Difference::Machine { what, a, b });
            }
        }
        let capabilities = |r: &Report| -> BTreeSet<String> {
            let configuration = r.configuration.as_ref();
            let names = configuration
                .map(Configuration::capabilities)
                .unwrap_or_default();
            names.iter().map(ToString::to_string).collect()
        };
        let (a, b) = (capabilities(a), capabilities(b));
        for name in a.symmetric_difference(&b) {
            self.tell(&Difference::Capability {
                only_in: if a.contains(name) { Side::A } else { Side::B },
                name: name.clone(),
            });
        }
    }

    fn blocks(&mut self, a: &Report, b: &Report, ram: RamComparison) {
        let pairing = pair(&a.ram.blocks, &b.ram.blocks, |block| block.name.as_bytes());
        for (block, other) in a.ram.blocks.iter().zip(&pairing.partner) {
            match other.and_then(|i| b.ram.blocks.get(i)) {
                Some(other) => self.block(block, other, ram),
                None => self.tell(&Difference::Block {
                    only_in: Side::A,
                    block,
                }),
            }
        }
        for block in pairing.left.iter().filter_map(|i| b.ram.blocks.get(*i)) {
            self.tell(&Difference::Block {
                only_in: Side::B,
                block,
            });
        }
        if let Some((first, second)) = pairing.swapped {
            let name = |i: usize| {
                a.ram
                    .blocks
                    .get(i)
                    .map_or_else(String::new, |b| b.name.to_string())
            };
            self.tell(&Difference::Order {
                of: "RAM block".to_owned(),
                first: name(first),
                second: name(second),
            });
        }
    }

    fn block(&mut self, a: &Block, b: &Block, ram: RamComparison) {
        self.compared.blocks += 1;
        for (what, left, right) in [
            ("used_length", Some(a.used_length), Some(b.used_length)),
            ("page_size", a.page_size, b.page_size),
            ("ignored", Some(a.ignored.into()), Some(b.ignored.into())),
        ] {
            if left != right {
                self.tell(&Difference::BlockShape {
                    block: a,
                    what,
                    a: left,
                    b: right,
                });
            }
        }
        if ram == RamComparison::Digest
            && let (Some(left), Some(right)) = (&a.sha256, &b.sha256)
        {
            self.compared.contents += 1;
            if left != right {
                self.tell(&Difference::BlockContent { a, b });
            }
        }
    }

    fn sections(&mut self, a: &Report, b: &Report) {
        let pairing = pair(&a.sections, &b.sections, |s| (&*s.idstr, s.instance_id));
        for (section, other) in a.sections.iter().zip(&pairing.partner) {
            match other.and_then(|i| b.sections.get(i)) {
                Some(other) => self.section(section, other),
                None => self.tell(&Difference::Section {
                    only_in: Side::A,
                    section,
                }),
            }
        }
        for section in pairing.left.iter().filter_map(|i| b.sections.get(*i)) {
            self.tell(&Difference::Section {
                only_in: Side::B,
                section,
            });
        }
        if let Some((first, second)) = pairing.swapped {
            let name = |i: usize| a.sections.get(i).map_or_else(String::new, section_name);
            self.tell(&Difference::Order {
                of: "section".to_owned(),
                first: name(first),
                second: name(second),
            });
        }
    }

    fn section(&mut self, a: &Section, b: &Section) {
        self.compared.sections += 1;
        let mut header = |what, left: String, right: String| {
            if left != right {
                self.tell(&Difference::Header {
                    section: a,
                    what,
                    a: left,
                    b: right,
                });
            }
        };
        header(
            "version_id",
            a.version_id.to_string(),
            b.version_id.to_string(),
        );
        header("kind", a.kind.name().to_owned(), b.kind.name().to_owned());
        self.content(a, b);
    }
}

/// A section's name: id string and instance id.
#[must_use]
pub fn section_name(section: &Section) -> String {
    format!("{}/{}", section.idstr, section.instance_id)
}

/// Which elements of two lists belong together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pairing {
    /// For each element of the first list, its place in the second.
    partner: Vec<Option<usize>>,
    /// Elements of the second list without a partner.
    left: Vec<usize>,
    /// Two neighbouring partners, by their places in the first list, that stand the other way round in the second.
    swapped: Option<(usize, usize)>,
}

fn pair<'e, T, K: std::hash::Hash + Eq>(
    a: &'e [T],
    b: &'e [T],
    key: impl Fn(&'e T) -> K,
) -> Pairing {
    // Several may have one key: the first goes with the first, the second with the second.
    let mut places: HashMap<K, VecDeque<usize>> = HashMap::with_capacity(b.len());
    for (i, element) in b.iter().enumerate() {
        places.entry(key(element)).or_default().push_back(i);
    }
    let mut pairing = Pairing::default();
    let mut taken = vec![false; b.len()];
    let mut last: Option<(usize, usize)> = None;
    for (i, element) in a.iter().enumerate() {
        let partner = places.get_mut(&key(element)).and_then(VecDeque::pop_front);
        if let Some(at) = partner {
            if let Some(taken) = taken.get_mut(at) {
                *taken = true;
            }
            match last {
                Some((before, place)) if place > at => {
                    pairing.swapped.get_or_insert((before, i));
                }
                _ => {}
            }
            last = Some((i, at));
        }
        pairing.partner.push(partner);
    }
    pairing.left = (0..b.len())
        .filter(|i| taken.get(*i) == Some(&false))
        .collect();
    pairing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_by_key_and_occurrence() {
        let check = |a: &str, b: &str| {
            let (a, b) = (a.as_bytes().to_vec(), b.as_bytes().to_vec());
            let Pairing {
                partner,
                left,
                swapped,
            } = pair(&a, &b, |c| *c);
            (partner, left, swapped)
        };
        assert_eq!(check("ab", "ab"), (vec![Some(0), Some(1)], vec![], None));
        assert_eq!(check("ab", "b"), (vec![None, Some(0)], vec![], None));
        assert_eq!(check("a", "xa"), (vec![Some(1)], vec![0], None));
        assert_eq!(
            check("abc", "acb"),
            (vec![Some(0), Some(2), Some(1)], vec![], Some((1, 2)))
        );
        assert_eq!(check("aa", "aaa"), (vec![Some(0), Some(1)], vec![2], None));
    }
}
