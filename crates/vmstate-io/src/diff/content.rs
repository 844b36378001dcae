//! Contents of sections.

use super::fields::Walk;
use super::{Comparison, Difference, Operand};
use crate::inspect::{Content, Section};

impl Comparison<'_> {
    pub(super) fn content(&mut self, a: &Section, b: &Section) {
        match (&a.content, &b.content) {
            (
                Content::Described(left) | Content::Dumped(left),
                Content::Described(right) | Content::Dumped(right),
            ) => {
                let mut walk = Walk::new(a, self);
                walk.state(left, right);
            }
            (Content::DirtyBitmaps(left), Content::DirtyBitmaps(right)) => {
                if left != right {
                    self.whole(a, Operand::Chunks(left.len()), Operand::Chunks(right.len()));
                }
            }
            (left, right) => {
                let (Some(left), Some(right)) = (bytes_of(left), bytes_of(right)) else {
                    return;
                };
                if left != right {
                    self.whole(a, Operand::Bytes(&left), Operand::Bytes(&right));
                }
            }
        }
    }

    fn whole(&mut self, section: &Section, a: Operand<'_>, b: Operand<'_>) {
        self.tell(&Difference::Field {
            section,
            path: "",
            a,
            b,
        });
    }
}

/// The payload: as it came, or encoded again.
fn bytes_of(content: &Content) -> Option<std::borrow::Cow<'_, [u8]>> {
    match content {
        Content::Opaque(bytes) => Some(bytes.into()),
        Content::Described(state) | Content::Dumped(state) => {
            let mut bytes = Vec::new();
            vmstate_wire::codec::encode(&**state, &mut bytes).ok()?;
            Some(bytes.into())
        }
        _ => None,
    }
}
