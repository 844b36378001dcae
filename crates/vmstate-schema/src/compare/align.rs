//! Which fields of two types belong together.

use crate::model::{Field, base_name};

/// A step of an alignment, in wire order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Field `.0` of the old type is field `.1` of the new one.
    Pair(usize, usize),
    /// Fields of the old type and of the new one that stand at the same place and have no partner by name.
    Gap(Vec<usize>, Vec<usize>),
}

/// Most cells of the table by which namesakes are found; larger types are paired from both ends only.
const CELLS: usize = 1 << 22;

/// How well two fields fit: 0 not at all.
fn score(old: &Field, new: &Field) -> u32 {
    let likeness = u32::from(old.element == new.element || size(old) == size(new))
        + u32::from(old.conditional == new.conditional);
    if (old.is_pad() || new.is_pad()) && size(old) != size(new) {
        // Unused bytes are looked at together with what they stand for.
        0
    } else if old.name == new.name {
        // Namesakes are told apart by what they are.
        8 + likeness
    } else if base_name(&old.name) == base_name(&new.name) {
        6 + likeness
    } else if is_alias(old, new) && !old.is_pad() && !new.is_pad() {
        4 + likeness
    } else {
        0
    }
}

/// Whether one of two fields had the other's name before.
pub(super) fn is_alias(old: &Field, new: &Field) -> bool {
    new.aliases.contains(&old.name) || old.aliases.contains(&new.name)
}

fn size(field: &Field) -> Option<u64> {
    match &field.element {
        crate::model::Element::Memory { size, .. } => Some(*size),
        crate::model::Element::Value(codec) => crate::build::wire_size(codec),
        _ => None,
    }
}

/// Aligns the fields: pairs of one name or alias in the same order, as many as possible.
pub(super) fn align(old: &[&Field], new: &[&Field]) -> Vec<Step> {
    let exact = |(a, b): &(&&Field, &&Field)| a.name == b.name && size(a) == size(b);
    let head = old.iter().zip(new).take_while(exact).count();
    let (old_rest, new_rest) = (
        old.get(head..).unwrap_or_default(),
        new.get(head..).unwrap_or_default(),
    );
    let tail = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(exact)
        .count();
    let old_middle = old_rest.len() - tail;
    let new_middle = new_rest.len() - tail;
    let mut steps: Vec<Step> = (0..head).map(|i| Step::Pair(i, i)).collect();
    let middle = pairs(
        old_rest.get(..old_middle).unwrap_or_default(),
        new_rest.get(..new_middle).unwrap_or_default(),
    );
    let (mut i, mut j) = (0, 0);
    let mut gap_to = |steps: &mut Vec<Step>, oi: usize, nj: usize| {
        if i < oi || j < nj {
            let shift = |range: std::ops::Range<usize>| range.map(|k| k + head).collect();
            steps.push(Step::Gap(shift(i..oi), shift(j..nj)));
        }
        (i, j) = (oi + 1, nj + 1);
    };
    for (a, b) in middle {
        gap_to(&mut steps, a, b);
        steps.push(Step::Pair(a + head, b + head));
    }
    gap_to(&mut steps, old_middle, new_middle);
    for k in 0..tail {
        steps.push(Step::Pair(head + old_middle + k, head + new_middle + k));
    }
    steps
}

/// The pairs of the best alignment: the longest common subsequence, weighted.
fn pairs(old: &[&Field], new: &[&Field]) -> Vec<(usize, usize)> {
    let (n, m) = (old.len(), new.len());
    if n == 0 || m == 0 || n.saturating_mul(m) > CELLS {
        return Vec::new();
    }
    let width = m + 1;
    let at = |i: usize, j: usize| i * width + j;
    let mut best = vec![0_u32; (n + 1) * width];
    let read = |best: &[u32], i: usize, j: usize| best.get(at(i, j)).copied().unwrap_or(0);
    let fit = |i: usize, j: usize| match (old.get(i), new.get(j)) {
        (Some(a), Some(b)) => score(a, b),
        _ => 0,
    };
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            let mut value = read(&best, i + 1, j).max(read(&best, i, j + 1));
            let fit = fit(i, j);
            if fit > 0 {
                value = value.max(read(&best, i + 1, j + 1) + fit);
            }
            if let Some(cell) = best.get_mut(at(i, j)) {
                *cell = value;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while i < n && j < m {
        let here = read(&best, i, j);
        let fit = fit(i, j);
        if fit > 0 && here == read(&best, i + 1, j + 1) + fit {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if here == read(&best, i + 1, j) {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Element;
    use vmstate_desc::Codec;

    fn aligned(old: &str, new: &str) -> Vec<Step> {
        let fields = |names: &str| -> Vec<Field> {
            names
                .chars()
                .map(|c| Field::new(c.to_string(), Element::Value(Codec::Uint8)))
                .collect()
        };
        let (old, new) = (fields(old), fields(new));
        align(
            &old.iter().collect::<Vec<_>>(),
            &new.iter().collect::<Vec<_>>(),
        )
    }

    #[test]
    fn fields_are_paired_in_order() {
        use Step::{Gap, Pair};
        assert_eq!(aligned("ab", "ab"), [Pair(0, 0), Pair(1, 1)]);
        assert_eq!(aligned("", "a"), [Gap(vec![], vec![0])]);
        assert_eq!(
            aligned("axb", "ayb"),
            [Pair(0, 0), Gap(vec![1], vec![1]), Pair(2, 2)]
        );
        assert_eq!(
            aligned("abcd", "acxd"),
            [
                Pair(0, 0),
                Gap(vec![1], vec![]),
                Pair(2, 1),
                Gap(vec![], vec![2]),
                Pair(3, 3)
            ]
        );
        assert_eq!(
            aligned("ab", "ba"),
            [Gap(vec![0], vec![]), Pair(1, 0), Gap(vec![], vec![1])]
        );
    }

    #[test]
    fn namesakes_are_told_apart_by_their_size() {
        let field = |bytes| {
            Field::new(
                "config",
                Element::Memory {
                    size: bytes,
                    num: None,
                    child: None,
                },
            )
        };
        let (small, large) = (field(256), field(4096));
        assert_eq!(
            align(&[&large], &[&small, &large]),
            [Step::Gap(vec![], vec![0]), Step::Pair(0, 1)]
        );
    }
}
