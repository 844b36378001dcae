//! One field: what of it is in the mirror, and how it goes there and back.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Ident, Index, Lit, Member, Type, Visibility, parse_quote};

use super::Cx;
use super::attrs::{FieldAttrs, Passed, Rest, field as parse};
use super::types::{default_of, is_nothing, is_open, peel, projected, spelled};
use crate::model::member_name;
use crate::parse::Errors;
use crate::types::{Shape, is_text, shape};

/// A field of the mirror.
#[derive(Debug)]
pub(super) struct MirrorField {
    pub(super) ident: Ident,
    pub(super) vis: Visibility,
    pub(super) docs: Vec<Attribute>,
    pub(super) ty: Type,
    /// Items of `#[vmstate(…)]`.
    pub(super) items: Vec<TokenStream>,
}

impl MirrorField {
    pub(super) fn default(&self) -> TokenStream {
        default_of(&self.ty)
    }
}

/// How a field becomes one of the mirror.
#[derive(Debug)]
pub(super) enum How {
    /// By its own implementation.
    Recurse,
    Clone,
    Into {
        ty: Type,
        clone: bool,
    },
    TryInto {
        ty: Type,
        clone: bool,
    },
    /// It has no state, but may have a place.
    Nothing,
    Omit {
        rebuild: Option<Expr>,
    },
}

/// A field of the runtime state with all that was found out about it.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) member: Member,
    pub(super) ty: &'a Type,
    pub(super) how: How,
    /// For errors.
    pub(super) name: String,
    /// A reference to the field.
    pub(super) field: Ident,
    /// What came for it.
    pub(super) value: Ident,
    /// Its second phase, or its new value.
    pub(super) ready: Ident,
    pub(super) mirror: Vec<MirrorField>,
    /// The field of the mirror that holds the value.
    pub(super) main: Ident,
    pub(super) len: Option<Ident>,
    pub(super) present: Option<Ident>,
    pub(super) validate: Option<Expr>,
}

/// Where fields are planned: the struct itself, or a variant.
pub(super) struct Place<'p> {
    /// Of names in the mirror.
    pub(super) prefix: String,
    /// When the fields are there: an expression about `mirror`.
    pub(super) condition: Option<&'p TokenStream>,
}

impl Place<'_> {
    /// The mirror's name of a field.
    pub(super) fn ident(&self, member: &Member) -> Ident {
        match member {
            Member::Named(ident) if self.prefix.is_empty() => ident.clone(),
            Member::Named(ident) => {
                format_ident!(
                    "{}_{}",
                    self.prefix,
                    member_name(member),
                    span = ident.span()
                )
            }
            Member::Unnamed(index) => {
                format_ident!("{}_{}", self.prefix, index.index, span = index.span)
            }
        }
    }
}

pub(super) fn plan<'a>(
    cx: &Cx<'_>,
    place: &Place<'_>,
    position: usize,
    field: &'a syn::Field,
    errors: &mut Errors,
) -> Planned<'a> {
    let attrs = parse(&field.attrs, errors);
    let member = match &field.ident {
        Some(ident) => Member::Named(ident.clone()),
        None => Member::Unnamed(Index {
            index: u32::try_from(position).unwrap_or(u32::MAX),
            span: field.ty.span(),
        }),
    };
    let local = |name: &str| {
        Ident::new(
            &format!("{name}{position}{}", place.prefix),
            Span::mixed_site(),
        )
    };
    let main = place.ident(&member);
    let mut planned = Planned {
        how: how(cx, &attrs, field, errors),
        name: error_name(&attrs, place, &member),
        member,
        ty: &field.ty,
        field: local("field"),
        value: local("value"),
        ready: local("ready"),
        mirror: Vec::new(),
        main,
        len: None,
        present: None,
        validate: attrs.validate.as_ref().map(|attr| attr.value.clone()),
    };
    if place.condition.is_some() {
        let presence = ["exists", "until"]
            .iter()
            .find_map(|k| attrs.passed_value(k));
        if let Some(item) = presence {
            errors.push(Error::new(
                item.key.span(),
                format!(
                    "`{}`: the variant alone decides whether its fields are there",
                    item.key
                ),
            ));
        }
    }
    let in_mirror = match &planned.how {
        How::Omit { .. } => false,
        How::Nothing => attrs.passes("unused"),
        _ => true,
    };
    if in_mirror {
        planned.mirror(cx, place, field, attrs, errors);
    }
    planned
}

fn error_name(attrs: &FieldAttrs, place: &Place<'_>, member: &Member) -> String {
    if let Some(Rest::Value(name)) = attrs.passed_value("name").map(|p| &p.rest)
        && let Ok(name) = syn::parse2::<syn::LitStr>(name.clone())
    {
        return name.value();
    }
    match member {
        Member::Unnamed(index) if place.prefix.is_empty() => index.index.to_string(),
        _ => place
            .ident(member)
            .to_string()
            .trim_start_matches("r#")
            .to_owned(),
    }
}

fn how(cx: &Cx<'_>, attrs: &FieldAttrs, field: &syn::Field, errors: &mut Errors) -> How {
    let clone = attrs.clone.is_some();
    let how = if let Some(omit) = &attrs.omit {
        How::Omit {
            rebuild: omit.value.clone(),
        }
    } else if let Some(into) = &attrs.into {
        How::Into {
            ty: into.value.clone(),
            clone,
        }
    } else if let Some(into) = &attrs.try_into {
        How::TryInto {
            ty: into.value.clone(),
            clone,
        }
    } else if clone {
        How::Clone
    } else if is_nothing(&field.ty) {
        How::Nothing
    } else {
        How::Recurse
    };
    if let (How::Nothing, Some(item)) = (&how, attrs.passed.iter().find(|p| p.key != "unused"))
        && !attrs.passes("unused")
    {
        errors.push(Error::new(
            item.key.span(),
            format!("`{}`: the field has no state", item.key),
        ));
    }
    if cx.attrs.shared.is_some() {
        let keys = [
            attrs.into.as_ref().map(|a| &a.key),
            attrs.try_into.as_ref().map(|a| &a.key),
            attrs.clone.as_ref().map(|a| &a.key),
            attrs
                .omit
                .as_ref()
                .filter(|a| a.value.is_some())
                .map(|a| &a.key),
        ];
        if let Some(key) = keys.into_iter().flatten().next() {
            errors.push(Error::new(
                key.span(),
                format!("a `shared` type restores through `&self`, and `{key}` puts a value into the field: wrap the field in a lock or a cell"),
            ));
        }
    }
    how
}

impl Planned<'_> {
    /// Finds out what of the field is in the mirror.
    fn mirror(
        &mut self,
        cx: &Cx<'_>,
        place: &Place<'_>,
        field: &syn::Field,
        attrs: FieldAttrs,
        errors: &mut Errors,
    ) {
        let shaped = attrs.passed.iter().any(|p| {
            !["name", "since", "until", "default"]
                .iter()
                .any(|k| p.key == k)
        });
        let ty = match &self.how {
            How::Clone => field.ty.clone(),
            How::Into { ty, .. } | How::TryInto { ty, .. } => ty.clone(),
            How::Nothing => parse_quote!(()),
            _ if shaped || is_open(&field.ty) => spelled(cx, &field.ty),
            _ => projected(cx, &field.ty),
        };
        let mut items: Vec<Passed> = attrs.passed.clone();
        for item in &mut items {
            if item.key == "count"
                && let Rest::Value(value) = &item.rest
                && let Some(member) = member_of(value)
            {
                item.rest = Rest::Value(place.ident(&member).into_token_stream());
            }
        }
        let mut helper = None;
        let counted = [
            "count",
            "count_with",
            "qtailq",
            "qlist",
            "marked",
            "prefixed",
            "byte_array",
            "size",
            "bits",
            "unused",
            "custom",
            "tmp",
        ];
        let open_count = !counted.iter().any(|k| attrs.passes(k));
        let text = is_text(&ty);
        match shape(&ty) {
            _ if text && attrs.passes("max") && !attrs.passes("byte_array") => {
                items.push(passed("byte_array", Rest::Flag, ty.span()));
            }
            Shape::Vec(_) | Shape::BoxSlice(_) if open_count => {
                if let Some(max) = attrs.passed_value("max") {
                    helper = Some(self.count(place, field, &attrs, max, &mut items));
                } else {
                    errors.push(Error::new_spanned(
                        peel(&field.ty),
                        "say how many elements this end accepts: `max = …`; a stream must not decide about memory",
                    ));
                }
            }
            Shape::Option(_)
                if !["exists", "subsection", "custom", "tmp"]
                    .iter()
                    .any(|k| attrs.passes(k)) =>
            {
                helper = Some(self.presence(field, &attrs, &mut items));
            }
            _ => {}
        }
        if let (Some(len), None) = (&attrs.len, &self.len) {
            errors.push(Error::new(
                len.key.span(),
                "`len` is for a `Vec` or boxed slice with `max` and without a count of its own",
            ));
        }
        let mut items: Vec<_> = items.iter().map(ToTokens::to_token_stream).collect();
        if matches!(self.member, Member::Unnamed(_))
            && place.prefix.is_empty()
            && !attrs.passes("name")
            && !attrs.passes("unused")
        {
            let name = member_name(&self.member);
            items.push(quote!(name = #name));
        }
        if let Some(condition) = place.condition {
            let exists = match &self.present {
                Some(present) => quote!(#condition && mirror.#present),
                None => condition.clone(),
            };
            items.push(quote!(exists = |mirror: &Self, _version: u32| #exists));
            if let Some(helper) = &mut helper {
                let exists = quote!(exists = |mirror: &Self, _version: u32| #condition);
                helper.items.push(exists);
            }
        } else if let Some(present) = &self.present {
            items.push(quote!(exists = |mirror: &Self, _version: u32| mirror.#present));
        }
        let docs = field.attrs.iter().filter(|a| a.path().is_ident("doc"));
        self.mirror.extend(helper);
        self.mirror.push(MirrorField {
            ident: self.main.clone(),
            vis: field.vis.clone(),
            docs: docs.cloned().collect(),
            ty,
            items,
        });
    }

    /// The field that counts the elements of this one.
    fn count(
        &mut self,
        place: &Place<'_>,
        field: &syn::Field,
        attrs: &FieldAttrs,
        max: &Passed,
        items: &mut Vec<Passed>,
    ) -> MirrorField {
        let (ident, ty) = match &attrs.len {
            Some(len) => {
                let member = Member::Named(len.value.0.clone());
                (place.ident(&member), len.value.1.clone())
            }
            None => (format_ident!("{}_len", self.main), parse_quote!(u32)),
        };
        items.push(passed(
            "count",
            Rest::Value(ident.to_token_stream()),
            max.key.span(),
        ));
        self.len = Some(ident.clone());
        helper(field, attrs, ident, ty)
    }

    /// The field that says whether this one is there.
    fn presence(
        &mut self,
        field: &syn::Field,
        attrs: &FieldAttrs,
        items: &mut Vec<Passed>,
    ) -> MirrorField {
        let ident = format_ident!("{}_present", self.main);
        self.present = Some(ident.clone());
        // The helper goes by versions, this one by the helper.
        items.retain(|item| item.key != "since" && item.key != "until");
        helper(field, attrs, ident, parse_quote!(bool))
    }
}

/// A field of the mirror that says something about another one.
fn helper(field: &syn::Field, attrs: &FieldAttrs, ident: Ident, ty: Type) -> MirrorField {
    let items = attrs
        .passed
        .iter()
        .filter(|p| p.key == "since" || p.key == "until");
    MirrorField {
        ident,
        vis: field.vis.clone(),
        docs: Vec::new(),
        ty,
        items: items.map(ToTokens::to_token_stream).collect(),
    }
}

fn passed(key: &str, rest: Rest, span: Span) -> Passed {
    Passed {
        key: Ident::new(key, span),
        rest,
    }
}

/// The field that `count = …` names.
pub(super) fn member_of(value: &TokenStream) -> Option<Member> {
    match syn::parse2::<Expr>(value.clone()).ok()? {
        Expr::Path(path) => path.path.get_ident().cloned().map(Member::Named),
        Expr::Lit(lit) => match lit.lit {
            Lit::Int(int) => Some(Member::Unnamed(Index {
                index: int.base10_parse().ok()?,
                span: int.span(),
            })),
            _ => None,
        },
        _ => None,
    }
}
