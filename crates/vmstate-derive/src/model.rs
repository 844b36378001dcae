//! The intermediate form between parsing and lowering.

use proc_macro2::Span;
use syn::{Expr, Generics, Ident, LitStr, Member, Path, Type, WherePredicate};

/// An attribute: its key, for messages and their place, and its value.
#[derive(Debug)]
pub(crate) struct Attr<T> {
    pub(crate) key: Ident,
    pub(crate) value: T,
}

pub(crate) type Opt<T> = Option<Attr<T>>;

/// The type that derives.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) attrs: ContainerAttrs,
    pub(crate) body: Body<'a>,
}

#[derive(Debug)]
pub(crate) enum Body<'a> {
    Struct(Vec<Field<'a>>),
    Enum(Vec<Variant<'a>>),
    Cases(Vec<Case<'a>>),
}

/// Attributes of the type.
#[derive(Debug, Default)]
pub(crate) struct ContainerAttrs {
    pub(crate) description: DescriptionAttrs,
    pub(crate) priority: Opt<Ident>,
    pub(crate) unmigratable: Opt<()>,
    pub(crate) early_setup: Opt<()>,
    pub(crate) unplug_pending: Opt<Expr>,
    pub(crate) extras: Vec<Extra>,
    pub(crate) transparent: Opt<()>,
    pub(crate) repr: Opt<Ident>,
    pub(crate) krate: Opt<Path>,
    pub(crate) bound: Opt<Vec<WherePredicate>>,
}

/// What a description and a subsection have in common.
#[derive(Debug, Default)]
pub(crate) struct DescriptionAttrs {
    pub(crate) name: Opt<LitStr>,
    pub(crate) version: Opt<Expr>,
    pub(crate) minimum_version: Opt<Expr>,
    pub(crate) needed: Opt<Expr>,
    pub(crate) pre_save: Opt<Expr>,
    pub(crate) post_save: Opt<Expr>,
    pub(crate) pre_load: Opt<Expr>,
    pub(crate) post_load: Opt<Expr>,
    pub(crate) subsections: Vec<SubsectionAttrs>,
}

/// `subsection(…)` of the type.
#[derive(Debug)]
pub(crate) struct SubsectionAttrs {
    pub(crate) key: Ident,
    pub(crate) description: DescriptionAttrs,
    pub(crate) fields: Vec<Member>,
}

/// An entry of the field list that is not a field of the struct.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) key: Ident,
    pub(crate) name: Option<LitStr>,
    pub(crate) after: Option<Member>,
    pub(crate) kind: ExtraKind,
}

#[derive(Debug)]
pub(crate) enum ExtraKind {
    MustExist(Expr),
    Tmp(Type),
}

/// A field of the struct.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) span: Span,
    pub(crate) attrs: FieldAttrs,
}

/// Attributes of a field.
#[derive(Debug, Default)]
pub(crate) struct FieldAttrs {
    pub(crate) kind: Opt<Kind>,
    pub(crate) name: Opt<LitStr>,
    pub(crate) since: Opt<Expr>,
    pub(crate) until: Opt<Expr>,
    pub(crate) exists: Opt<Expr>,
    pub(crate) ignorable: Opt<()>,
    pub(crate) aliases: Opt<Vec<LitStr>>,
    pub(crate) count: Opt<CountBy>,
    pub(crate) multiply: Opt<Expr>,
    pub(crate) max: Opt<Expr>,
    pub(crate) size: Opt<Expr>,
    pub(crate) bits: Opt<Expr>,
    pub(crate) range: Opt<Range>,
    pub(crate) resize_max: Opt<Expr>,
    pub(crate) validate: Opt<Expr>,
    pub(crate) default: Opt<Expr>,
}

/// What kind of field it is, where the type does not say it.
#[derive(Debug)]
pub(crate) enum Kind {
    Skip,
    Unused(Expr),
    Tmp(Box<Type>),
    Custom(Box<Custom>),
    Subsection { needed: Option<Expr> },
    Buffer,
    Bitmap,
    ByteArray,
    List(List),
    Equal,
    LessOrEqual,
    LittleEndian,
    StructVersion(Expr),
    Pointers(Holes),
    Variant(Member),
}

#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) name: LitStr,
    pub(crate) size: Option<Expr>,
    pub(crate) save: Expr,
    pub(crate) load: Expr,
}

#[derive(Debug)]
pub(crate) enum List {
    TailQueue,
    Linked,
    Marked {
        more: Expr,
        stop: Expr,
        lenient: bool,
    },
    Prefixed(Expr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holes {
    MarkEvery,
    MarkAbsent,
}

#[derive(Debug)]
pub(crate) enum CountBy {
    Field(Member),
    With(Expr),
}

/// `from..to` of an array.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) from: Option<Expr>,
    pub(crate) to: Option<Expr>,
}

/// A variant of an enum.
#[derive(Debug)]
pub(crate) struct Variant<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) value: &'a Expr,
}

/// A variant of an enum that is one of several states.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) value: Expr,
    /// The state. None: there is no state in it.
    pub(crate) ty: Option<&'a Type>,
}

/// What is described, in which order: the result of the checks.
#[derive(Debug)]
pub(crate) enum Plan<'a> {
    Description(Description<'a>),
    Transparent(&'a Field<'a>),
    Enum(&'a Ident),
    Cases(&'a [Case<'a>]),
}

/// The type's own description, or that of a subsection whose fields live in it.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    /// None for the type's own.
    pub(crate) part: Option<usize>,
    pub(crate) attrs: &'a DescriptionAttrs,
    pub(crate) entries: Vec<Entry<'a>>,
    pub(crate) subsections: Vec<Subsection<'a>>,
}

#[derive(Debug)]
pub(crate) enum Entry<'a> {
    Field(Box<Described<'a>>),
    Extra(&'a Extra),
}

/// A field with everything that was found out about it.
#[derive(Debug)]
pub(crate) struct Described<'a> {
    pub(crate) field: &'a Field<'a>,
    /// What counts its elements; of a variant, what decides about its case.
    pub(crate) count: Option<Counter<'a>>,
}

impl Described<'_> {
    /// Whether its count is known before anything is loaded: a field that is in no stream.
    pub(crate) fn is_configured(&self) -> bool {
        matches!(&self.count, Some(Counter::Own(counter)) if matches!(counter.kind(), Some(Kind::Skip)))
    }
}

/// Where a count comes from.
#[derive(Debug)]
pub(crate) enum Counter<'a> {
    /// A field that travels in the same description.
    Field(&'a Field<'a>),
    /// A field that does not.
    Own(&'a Field<'a>),
    /// A function.
    With(&'a Expr),
}

#[derive(Debug)]
pub(crate) enum Subsection<'a> {
    Part(Description<'a>),
    Field {
        field: &'a Field<'a>,
        needed: Option<&'a Expr>,
    },
}

fn key<T>(attr: &Opt<T>) -> Option<&Ident> {
    attr.as_ref().map(|attr| &attr.key)
}

impl ContainerAttrs {
    /// The keys of all that was given.
    pub(crate) fn keys(&self) -> Vec<&Ident> {
        let d = &self.description;
        let single = [
            key(&d.name),
            key(&d.version),
            key(&d.minimum_version),
            key(&d.needed),
            key(&d.pre_save),
            key(&d.post_save),
            key(&d.pre_load),
            key(&d.post_load),
            key(&self.priority),
            key(&self.unmigratable),
            key(&self.early_setup),
            key(&self.unplug_pending),
            key(&self.transparent),
            key(&self.repr),
            key(&self.krate),
            key(&self.bound),
        ];
        let several = d.subsections.iter().map(|subsection| &subsection.key);
        let several = several.chain(self.extras.iter().map(|extra| &extra.key));
        single.into_iter().flatten().chain(several).collect()
    }
}

impl FieldAttrs {
    /// The keys of all that was given, but for the kind.
    pub(crate) fn modifiers(&self) -> Vec<&Ident> {
        let keys = [
            key(&self.name),
            key(&self.since),
            key(&self.until),
            key(&self.exists),
            key(&self.ignorable),
            key(&self.aliases),
            key(&self.count),
            key(&self.multiply),
            key(&self.max),
            key(&self.size),
            key(&self.bits),
            key(&self.range),
            key(&self.resize_max),
            key(&self.validate),
            key(&self.default),
        ];
        keys.into_iter().flatten().collect()
    }

    /// The keys of all that was given.
    pub(crate) fn keys(&self) -> Vec<&Ident> {
        key(&self.kind)
            .into_iter()
            .chain(self.modifiers())
            .collect()
    }
}

impl Field<'_> {
    pub(crate) fn kind(&self) -> Option<&Kind> {
        self.attrs.kind.as_ref().map(|kind| &kind.value)
    }

    /// The name on the wire, as a literal at the place of whatever gave it.
    pub(crate) fn wire_name(&self) -> LitStr {
        if let Some(name) = &self.attrs.name {
            return name.value.clone();
        }
        // QEMU calls all of these the same.
        let name = match self.kind() {
            Some(Kind::Unused(_)) => "unused".to_owned(),
            Some(Kind::Tmp(_)) => "tmp".to_owned(),
            _ => member_name(&self.member),
        };
        LitStr::new(&name, self.span)
    }
}

/// A field's name in Rust, without `r#`.
pub(crate) fn member_name(member: &Member) -> String {
    match member {
        Member::Named(ident) => syn::ext::IdentExt::unraw(ident).to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}
