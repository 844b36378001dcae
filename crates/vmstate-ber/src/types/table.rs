//! The table of a stream's types.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use vmstate_desc::{Description, DescriptionRef};

use super::def::{TypeDef, TypeFlags};
use super::lower::lower;
use super::raise::raise;
use crate::error::{BerError, BerErrorKind};
use crate::frame::{FrameKind, frame_tag};
use crate::limits::{Limits, MAX_DEPTH};
use crate::value::{Adapted, Plans};

/// What it costs to meet a type, as bytes of hashing.
const VISIT: usize = 64;

/// Place of a type in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeIndex(pub(crate) usize);

/// The types of one stream.
///
/// ```
/// use vmstate_ber::types::TypeTable;
/// use vmstate_desc::{Codec, Description, Field};
/// static RTC: Description =
///     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
///
/// let mut types = TypeTable::default();
/// let rtc = types.add(&RTC)?;
/// assert_eq!(types.add(&RTC)?, rtc, "equal types are one");
/// assert_eq!(types.get(rtc).map(|ty| ty.id), Some(1));
/// assert_eq!(*types.description(rtc)?, RTC);
/// # Ok::<(), vmstate_ber::BerError>(())
/// ```
#[derive(Debug, Default)]
pub struct TypeTable {
    types: Vec<Arc<TypeDef>>,
    /// Where the frames stand of types that came in one, by the type's place.
    offsets: HashMap<TypeIndex, u64>,
    by_id: HashMap<u32, TypeIndex>,
    /// Types by what they say, without their number: the first `said` ones. Those that came are looked at when others are added.
    by_content: HashMap<Vec<u8>, TypeIndex>,
    said: usize,
    /// Descriptions that have been added, by address. Each is kept, so that no other takes its place.
    added: HashMap<usize, (DescriptionRef, TypeIndex)>,
    /// Descriptions that have been made.
    made: HashMap<TypeIndex, Arc<Description>>,
    fields: usize,
    content: u64,
    inferred: bool,
    /// How values of whole structs are made.
    plans: Plans,
    /// What readers of these types have adapted.
    adapted: Adapted,
}

impl TypeTable {
    /// A table whose added types are marked as inferred from a QEMU stream's trailer.
    #[must_use]
    pub fn inferred() -> Self {
        Self {
            inferred: true,
            ..Self::default()
        }
    }

    /// Number of types.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The types from number `first` of the table on, in the order in which they were added.
    #[must_use]
    pub fn since(&self, first: usize) -> &[Arc<TypeDef>] {
        self.types.get(first..).unwrap_or_default()
    }

    /// The type at this place.
    #[must_use]
    pub fn get(&self, index: TypeIndex) -> Option<&Arc<TypeDef>> {
        self.types.get(index.0)
    }

    /// The place of the type with this number.
    #[must_use]
    #[inline]
    pub fn find(&self, id: u32) -> Option<TypeIndex> {
        // Most streams number their types in order.
        let place = (id as usize).wrapping_sub(1);
        match self.types.get(place) {
            Some(ty) if ty.id == id => Some(TypeIndex(place)),
            _ => self.by_id.get(&id).copied(),
        }
    }

    /// Adds a description and all that it embeds. Equal types are one.
    ///
    /// # Errors
    /// What no type can say: see [`BerErrorKind::Type`].
    pub fn add(&mut self, description: &Description) -> Result<TypeIndex, BerError> {
        self.add_at(description, &mut HashMap::new(), 0)
    }

    /// As [`TypeTable::add`], quickly for one that was added before.
    ///
    /// # Errors
    /// As [`TypeTable::add`].
    pub fn add_ref(&mut self, description: &DescriptionRef) -> Result<TypeIndex, BerError> {
        let address = address(description);
        if let Some((_, index)) = self.added.get(&address) {
            return Ok(*index);
        }
        let index = self.add(description)?;
        self.added.insert(address, (description.clone(), index));
        Ok(index)
    }

    /// `seen`: what has been added in the present call, by address: shared parts are looked at once.
    fn add_at(
        &mut self,
        description: &Description,
        seen: &mut HashMap<usize, TypeIndex>,
        depth: u32,
    ) -> Result<TypeIndex, BerError> {
        if let Some(index) = seen.get(&address(description)) {
            return Ok(*index);
        }
        if depth >= MAX_DEPTH {
            return Err(BerErrorKind::Limit {
                what: "depth of a type",
                found: u64::from(depth).saturating_add(1),
                limit: MAX_DEPTH.into(),
            }
            .at(0));
        }
        let mut ty = lower(description, &mut |child| {
            let index = self.add_at(child, seen, depth.saturating_add(1))?;
            Ok(self.get(index).map_or(0, |ty| ty.id))
        })?;
        ty.flags = TypeFlags {
            inferred: self.inferred,
            recorded: false,
        };
        for index in self.said..self.types.len() {
            if let Some(ty) = self.types.get(index) {
                let said = said(ty);
                self.by_content.entry(said).or_insert(TypeIndex(index));
            }
        }
        let content = said(&ty);
        let index = match self.by_content.get(&content) {
            Some(index) => *index,
            None => {
                ty.id = self.free_id();
                let index = self.push(ty);
                self.by_content.insert(content, index);
                index
            }
        };
        self.said = self.types.len();
        seen.insert(address(description), index);
        Ok(index)
    }

    /// What readers of the stream's values have told here: it goes where the types go.
    #[must_use]
    pub const fn adapted(&self) -> &Adapted {
        &self.adapted
    }

    pub(crate) const fn plans(&self) -> &Plans {
        &self.plans
    }

    fn free_id(&self) -> u32 {
        let mut id = u32::try_from(self.types.len()).unwrap_or(0).wrapping_add(1);
        while id == 0 || self.by_id.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        id
    }

    fn push(&mut self, ty: TypeDef) -> TypeIndex {
        let index = TypeIndex(self.types.len());
        self.by_id.insert(ty.id, index);
        self.types.push(Arc::new(ty));
        self.plans.add();
        index
    }

    /// Adds a type that came in a frame with `content` bytes, which stands at `offset`.
    ///
    /// # Errors
    /// A number that is taken, and limits.
    pub fn insert(
        &mut self,
        ty: TypeDef,
        content: u64,
        offset: u64,
        limits: &Limits,
    ) -> Result<TypeIndex, BerError> {
        if self.by_id.contains_key(&ty.id) {
            return Err(BerErrorKind::DuplicateType { id: ty.id }.at(offset));
        }
        let own = ty.fields.len().saturating_add(ty.subs.len());
        let fields = self.fields.saturating_add(own);
        let total = self.content.saturating_add(content);
        let bounds = [
            (
                "types",
                (self.types.len() as u64).saturating_add(1),
                limits.types as u64,
            ),
            (
                "fields of all types",
                fields as u64,
                limits.all_fields as u64,
            ),
            ("bytes of all types", total, limits.types_content),
        ];
        for (what, found, limit) in bounds {
            if found > limit {
                return Err(BerErrorKind::Limit { what, found, limit }.at(offset));
            }
        }
        self.fields = fields;
        self.content = total;
        let index = self.push(ty);
        self.offsets.insert(index, offset);
        Ok(index)
    }

    /// The type with this number.
    ///
    /// # Errors
    /// [`BerErrorKind::UnknownType`].
    pub fn by_id(&self, id: u32, offset: u64) -> Result<TypeIndex, BerError> {
        self.find(id)
            .ok_or_else(|| BerErrorKind::UnknownType { id }.at(offset))
    }

    /// Makes the description of a type, with all that it embeds.
    ///
    /// # Errors
    /// Types that are not defined, that contain themselves, that break a rule of descriptions, or that say what no
    /// description of ours can say.
    pub fn description(&mut self, index: TypeIndex) -> Result<Arc<Description>, BerError> {
        self.make(index, &mut HashSet::new())
    }

    fn make(
        &mut self,
        index: TypeIndex,
        open: &mut HashSet<TypeIndex>,
    ) -> Result<Arc<Description>, BerError> {
        if let Some(description) = self.made.get(&index) {
            return Ok(Arc::clone(description));
        }
        let Some(ty) = self.get(index).cloned() else {
            return Err(BerErrorKind::UnknownType { id: 0 }.at(0));
        };
        let came = self.offsets.get(&index).copied();
        let offset = came.unwrap_or(0);
        let placed = |error: BerError| match came {
            Some(offset) => error.in_frame(FrameKind(frame_tag::TYPE_DEF), offset),
            None => error,
        };
        if !open.insert(index) {
            let kind = BerErrorKind::CircularType {
                id: ty.id,
                name: ty.name.clone(),
            };
            return Err(placed(kind.at(offset)));
        }
        if open.len() > MAX_DEPTH as usize {
            let kind = BerErrorKind::Limit {
                what: "depth of a type",
                found: open.len() as u64,
                limit: MAX_DEPTH.into(),
            };
            return Err(placed(kind.at(offset)));
        }
        let description = raise(&ty, offset, &mut |id| {
            let child = self.by_id(id, offset)?;
            self.make(child, open)
        })
        .map_err(placed)?;
        open.remove(&index);
        let description = Arc::new(description);
        self.made.insert(index, Arc::clone(&description));
        Ok(description)
    }

    /// The closure digest of a type: SHA-256 of its frame and those of all types that it reaches, numbered in the order in
    /// which they are met: fields first, then subsections, depth first. Equal digests mean equal types.
    ///
    /// # Errors
    /// [`BerErrorKind::UnknownType`].
    pub fn digest(&self, index: TypeIndex) -> Result<[u8; 32], BerError> {
        let mut unbounded = u64::MAX;
        self.digest_within(index, &mut unbounded)
    }

    /// As [`TypeTable::digest`], for types from somebody who is not trusted: takes from `budget` what it costs, about the number of
    /// bytes that are hashed, and gives up when nothing is left.
    ///
    /// # Errors
    /// [`BerErrorKind::UnknownType`], and [`BerErrorKind::Limit`] if the budget does not do.
    pub fn digest_within(&self, index: TypeIndex, budget: &mut u64) -> Result<[u8; 32], BerError> {
        let limit = *budget;
        let mut spend = |cost: usize| match budget.checked_sub(cost as u64) {
            Some(left) => {
                *budget = left;
                Ok(())
            }
            None => Err(BerErrorKind::Limit {
                what: "bytes of types to be hashed",
                found: limit.saturating_add(1),
                limit,
            }
            .at(0)),
        };
        let mut order: Vec<TypeIndex> = Vec::new();
        let mut number: HashMap<u32, u32> = HashMap::new();
        // A stack of what is still to be met, next one last.
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            let Some(ty) = self.get(index) else {
                return Err(BerErrorKind::UnknownType { id: 0 }.at(0));
            };
            spend(VISIT)?;
            if number.contains_key(&ty.id) {
                continue;
            }
            order.push(index);
            number.insert(ty.id, u32::try_from(order.len()).unwrap_or(u32::MAX));
            let mut reached = Vec::new();
            for id in reached_by(ty) {
                reached.push(self.by_id(id, 0)?);
            }
            open.extend(reached.into_iter().rev());
        }
        let mut bytes = Vec::new();
        for ty in order.iter().filter_map(|index| self.get(*index)) {
            let renumber = |id: u32| number.get(&id).copied().unwrap_or(0);
            let before = bytes.len();
            ty.encode_as(renumber(ty.id), &renumber, &mut bytes);
            spend(bytes.len().saturating_sub(before))?;
        }
        Ok(Sha256::digest(&bytes).into())
    }
}

/// Numbers of the types that a type names, in order.
fn reached_by(ty: &TypeDef) -> impl Iterator<Item = u32> + '_ {
    let fields = ty.fields.iter().flat_map(|field| {
        let cases = field
            .variants
            .iter()
            .flat_map(|v| v.cases.iter().map(|(_, ty)| *ty));
        field.key.into_iter().chain(field.ty).chain(cases)
    });
    fields.chain(ty.subs.iter().map(|sub| sub.ty))
}

/// What a type says, without its number.
fn said(ty: &TypeDef) -> Vec<u8> {
    let mut content = Vec::new();
    ty.encode_as(0, &|id| id, &mut content);
    content
}

fn address(description: &Description) -> usize {
    std::ptr::from_ref(description).addr()
}
