//! Values against conditions: a visitor that walks the state of any accessor.

use std::collections::HashMap;

use vmstate_desc::{
    Codec, Description, Element, Error, FieldCx, Gate, Role, SaveState, SaveVisitor, Scalar,
    ScalarType, Size, Slice, save,
};

use crate::compare::{Condition, Test};

/// What the values say about a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether all values are as the test wants them.
    pub holds: bool,
    /// The values for people: how many there are, and the first that is not as it should be.
    pub values: String,
}

/// Walks a state and answers tests about its values, in the order of the tests.
///
/// # Errors
/// State that cannot be saved.
///
/// ```
/// use vmstate_desc::{Codec, Description, DynState, Field, Scalar};
/// use vmstate_schema::compare::{Condition, Test};
/// use vmstate_schema::validate::validate;
///
/// static RTC: Description =
///     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
/// let mut rtc = DynState::new(&RTC);
/// rtc.set("year", Scalar::U16(2026));
/// let fits = |maximum| Test {
///     path: "year".to_owned(),
///     condition: Condition::Range { minimum: 0, maximum },
/// };
/// let answers = validate(&rtc, &[fits(65_535), fits(255)])?;
/// assert!(answers[0].holds && !answers[1].holds);
/// assert_eq!(answers[1].values, "2026 is outside of 0 to 255");
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
pub fn validate(state: &dyn SaveState, tests: &[Test]) -> Result<Vec<Answer>, Error> {
    let found = walked(state, tests)?;
    let answers = tests.iter().zip(&found);
    Ok(answers
        .map(|(test, found)| found.answer(test.condition))
        .collect())
}

fn walked(state: &dyn SaveState, tests: &[Test]) -> Result<Vec<Found>, Error> {
    let mut by_path: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, test) in tests.iter().enumerate() {
        by_path.entry(&test.path).or_default().push(number);
    }
    let mut validator = Validator {
        tests,
        by_path,
        found: vec![Found::default(); tests.len()],
        path: String::new(),
        open: Vec::new(),
    };
    save(state, &mut validator)?;
    Ok(validator.found)
}

/// The number at each of these paths, where there is one and no more: against which loading would check.
///
/// # Errors
/// State that cannot be saved.
pub(crate) fn only_numbers(
    state: &dyn SaveState,
    paths: &[&str],
) -> Result<Vec<Option<i128>>, Error> {
    let tests: Vec<Test> = paths
        .iter()
        .map(|path| Test {
            path: (*path).to_owned(),
            condition: Condition::EqualsOwn,
        })
        .collect();
    let found = walked(state, &tests)?;
    let only = |found: &Found| found.number.filter(|_| found.looked_at == 1);
    Ok(found.iter().map(only).collect())
}

/// What was found about one test.
#[derive(Debug, Clone, Default)]
struct Found {
    /// The number that came last, of tests that only ask for it.
    number: Option<i128>,
    /// Values that were looked at.
    looked_at: u64,
    /// The first that is wrong.
    wrong: Option<String>,
}

impl Found {
    fn answer(&self, condition: Condition) -> Answer {
        let n = self.looked_at;
        let (holds, values) = match (condition, &self.wrong) {
            (Condition::NotSent, _) => {
                (n == 0, if n == 0 { "not sent" } else { "sent" }.to_owned())
            }
            (Condition::Sent, _) => (n > 0, if n == 0 { "not sent" } else { "sent" }.to_owned()),
            (_, Some(wrong)) => (false, wrong.clone()),
            (_, None) => {
                let values = match n {
                    0 => "there are no values".to_owned(),
                    1 => format!("1 value fits: {condition}"),
                    n => format!("{n} values fit: {condition}"),
                };
                (true, values)
            }
        };
        Answer { holds, values }
    }
}

struct Validator<'t> {
    tests: &'t [Test],
    by_path: HashMap<&'t str, Vec<usize>>,
    found: Vec<Found>,
    path: String,
    /// Lengths of the path before its segments.
    open: Vec<usize>,
}

impl Validator<'_> {
    fn enter(&mut self, segment: &str, braces: bool) {
        self.open.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push('/');
        }
        if braces {
            self.path.push('{');
        }
        self.path.push_str(segment);
        if braces {
            self.path.push('}');
        }
    }

    fn leave(&mut self) {
        if let Some(length) = self.open.pop() {
            self.path.truncate(length);
        }
    }

    /// Calls `look` for each test of what is open; it gives what is wrong.
    fn each(&mut self, mut look: impl FnMut(Condition) -> Option<Option<String>>) {
        let Some(numbers) = self.by_path.get(self.path.as_str()) else {
            return;
        };
        for number in numbers {
            if let (Some(test), Some(found)) =
                (self.tests.get(*number), self.found.get_mut(*number))
                && let Some(wrong) = look(test.condition)
            {
                found.looked_at = found.looked_at.saturating_add(1);
                if found.wrong.is_none() {
                    found.wrong = wrong;
                }
            }
        }
    }

    fn is_tested(&self) -> bool {
        self.by_path.contains_key(self.path.as_str())
    }

    /// A field or subsection that is there.
    fn sent(&mut self) {
        self.each(|condition| {
            matches!(condition, Condition::NotSent | Condition::Sent).then_some(None)
        });
    }

    fn count(&mut self, n: u64) {
        self.each(|condition| {
            let fits = match condition {
                Condition::AtMost(most) => n <= most,
                Condition::Exactly(wanted) => n == wanted,
                _ => return None,
            };
            Some((!fits).then(|| format!("there are {n}, not {condition}")))
        });
    }

    fn number(&mut self, value: Scalar) {
        let own = [Condition::EqualsOwn, Condition::UpToOwn];
        if let Some(numbers) = self.by_path.get(self.path.as_str()) {
            for number in numbers {
                if let (Some(test), Some(found)) =
                    (self.tests.get(*number), self.found.get_mut(*number))
                    && own.contains(&test.condition)
                {
                    found.number = value.as_i128();
                    found.looked_at = found.looked_at.saturating_add(1);
                }
            }
        }
        self.each(|condition| {
            let Condition::Range { minimum, maximum } = condition else {
                return None;
            };
            let value = value.as_i128()?;
            let fits = (minimum..=maximum).contains(&value);
            Some((!fits).then(|| format!("{value} is outside of {condition}")))
        });
    }

    /// Words of a bitmap.
    fn words(&mut self, words: &[u64]) {
        self.each(|condition| {
            let Condition::BitsBelow(end) = condition else {
                return None;
            };
            let beyond = (0_u64..).step_by(64).zip(words).find_map(|(first, word)| {
                let kept = u32::try_from(end.saturating_sub(first)).unwrap_or(64);
                let rest = word.checked_shr(kept).unwrap_or(0);
                (rest != 0).then(|| {
                    let bit = first + u64::from(kept) + u64::from(rest.trailing_zeros());
                    format!("bit {bit} is set")
                })
            });
            Some(beyond)
        });
    }
}

/// The case of a variant as a part of a path, without the braces of what is optional.
pub(crate) fn case_part(value: i64) -> String {
    format!("case {value}")
}

/// Elements, bytes of a buffer, bits of a bitmap; `None` where the walk tells later.
fn units(cx: FieldCx<'_>) -> Option<u64> {
    match &cx.field.element {
        Element::List(..) | Element::Tree { .. } => None,
        Element::Value(Codec::ByteArray { .. } | Codec::Capability | Codec::Custom { .. }) => None,
        // The walk counts words; a fixed size is in bits.
        Element::Value(Codec::Bitmap(Size::Fixed(bits))) => Some(u64::from(*bits)),
        Element::Value(Codec::Bitmap(_)) => Some((cx.count as u64).saturating_mul(64)),
        _ => Some(cx.count as u64),
    }
}

impl SaveVisitor for Validator<'_> {
    fn begin(&mut self, d: &Description, _version: u32, role: Role<'_>) -> Result<(), Error> {
        match role {
            Role::Subsection => {
                self.enter(&d.name, true);
                self.sent();
            }
            Role::Key { .. } => self.enter("key", false),
            Role::Case { value, .. } => {
                self.enter(&case_part(value), true);
                self.sent();
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _d: &Description, role: Role<'_>) -> Result<(), Error> {
        if matches!(
            role,
            Role::Subsection | Role::Key { .. } | Role::Case { .. }
        ) {
            self.leave();
        }
        Ok(())
    }

    fn field(&mut self, cx: FieldCx<'_>) -> Result<Gate, Error> {
        self.enter(&cx.field.name, false);
        self.sent();
        if let Some(n) = units(cx) {
            self.count(n);
        }
        Ok(Gate::Visit)
    }

    fn end_field(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        self.leave();
        Ok(())
    }

    fn slot(&mut self, _cx: FieldCx<'_>, index: usize, present: bool) -> Result<(), Error> {
        self.each(|condition| {
            (condition == Condition::NoneAbsent)
                .then(|| (!present).then(|| format!("element {index} is absent")))
        });
        Ok(())
    }

    fn scalar(&mut self, _cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error> {
        self.number(Scalar::from_bits(ty, bits));
        Ok(())
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        if !self.is_tested() {
            return Ok(());
        }
        match (&cx.field.element, values) {
            (Element::Value(Codec::Bitmap(_)), Slice::U64(words)) => self.words(words),
            (Element::Value(Codec::Buffer(_) | Codec::Custom { .. }), _) => {}
            _ => {
                for value in (0..values.len()).filter_map(|index| values.get(index)) {
                    self.number(value);
                }
            }
        }
        Ok(())
    }

    fn unused(&mut self, _cx: FieldCx<'_>, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error> {
        if matches!(cx.field.element, Element::Value(Codec::ByteArray { .. })) {
            self.count(bytes.len() as u64);
        }
        Ok(())
    }

    fn list(&mut self, _cx: FieldCx<'_>, len: usize) -> Result<(), Error> {
        self.count(len as u64);
        Ok(())
    }

    fn item(&mut self, _cx: FieldCx<'_>, _index: usize) -> Result<(), Error> {
        Ok(())
    }

    fn end_list(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn direct_key(&mut self, _cx: FieldCx<'_>, _key: u64) -> Result<(), Error> {
        Ok(())
    }
}
