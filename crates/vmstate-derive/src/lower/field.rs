//! One field: its description, and how it is saved and loaded.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Ident, LitStr, Member, Type};

use super::{Cx, callee};
use crate::model::{Attr, Counter, Custom, Described, Holes, Kind, List, Range, member_name};
use crate::types::{Shape, element, is_text, pointee, shape};

/// The code of one field.
pub(super) struct FieldCode {
    /// An expression of type `Field`.
    pub(super) description: TokenStream,
    /// The arm of `save_field`.
    pub(super) save: Option<TokenStream>,
    /// The arm of `load_field`.
    pub(super) load: Option<TokenStream>,
    /// The arm of `count`.
    pub(super) count: Option<TokenStream>,
}

impl FieldCode {
    pub(super) fn of(cx: &Cx<'_>, field: &Described<'_>) -> Self {
        let (save, load) = match access(cx, field) {
            Some((save, load)) => (Some(save), Some(validated(field, load))),
            None => (None, None),
        };
        Self {
            description: description(cx, field),
            save,
            load,
            count: counter(cx, field),
        }
    }
}

/// `Field::new(…)` with all that belongs to it.
fn description(cx: &Cx<'_>, described: &Described<'_>) -> TokenStream {
    let krate = &cx.krate;
    let field = described.field;
    let attrs = &field.attrs;
    let name = field.wire_name();
    let content = element_of(cx, described);
    let mut out = quote!(#krate::Field::new(#name, #content));
    if let Some(repeat) = repeat_of(cx, described) {
        out.extend(quote!(.repeat(#repeat)));
    }
    if let Some(Kind::Pointers(holes)) = field.kind() {
        out.extend(match holes {
            Holes::MarkAbsent => quote!(.mark_absent()),
            Holes::MarkEvery => {
                let object = pointee(element(field.ty).unwrap_or(field.ty));
                quote!(.mark_every(#krate::support::element::object_size::<#object>()))
            }
        });
    }
    if let Some(since) = &attrs.since {
        let since = &since.value;
        out.extend(quote!(.since(#since)));
    }
    if let Some(until) = &attrs.until {
        let until = &until.value;
        out.extend(quote!(.until(#until)));
    }
    if attrs.exists.is_some() {
        out.extend(quote!(.conditional()));
    }
    if attrs.ignorable.is_some() {
        out.extend(quote!(.ignorable()));
    }
    if attrs.default.is_some() {
        out.extend(quote!(.with_default()));
    }
    if let Some(max) = &attrs.resize_max {
        let place = max.key.span();
        let mut most = max.value.to_token_stream();
        if let Shape::Array(_, len) = shape(field.ty) {
            let krate = cx.krate_at(place);
            most = quote_spanned!(place=> #krate::support::element::resize_at_most(#most, #len));
        }
        let most = units(cx, field.ty, most);
        out.extend(quote!(.resize_max(#most)));
    }
    if let Some(aliases) = &attrs.aliases {
        let names = &aliases.value;
        out.extend(quote!(.aliases({
            const NAMES: &[::std::borrow::Cow<'static, str>] =
                &[#(::std::borrow::Cow::Borrowed(#names)),*];
            NAMES
        })));
    }
    out
}

/// The element of a field whose type alone decides.
fn type_element(cx: &Cx<'_>, ty: &Type) -> TokenStream {
    let krate = &cx.krate;
    quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>::ELEMENT)
}

pub(super) fn tmp_element(cx: &Cx<'_>, ty: &Type) -> TokenStream {
    let krate = &cx.krate;
    quote! {
        #krate::Element::Tmp(#krate::DescriptionRef::Static(<#ty as #krate::VmState>::DESCRIPTION))
    }
}

fn element_of(cx: &Cx<'_>, described: &Described<'_>) -> TokenStream {
    let krate = &cx.krate;
    let field = described.field;
    let ty = field.ty;
    let place = field
        .attrs
        .kind
        .as_ref()
        .map_or(field.span, |kind| kind.key.span());
    let computed = |function: &str, arguments: TokenStream| {
        let function = Ident::new(function, place);
        let krate = cx.krate_at(place);
        quote_spanned!(place=> #krate::support::element::#function::<#ty>(#arguments))
    };
    match field.kind() {
        None | Some(Kind::Skip | Kind::Subsection { .. } | Kind::Pointers(_)) => {
            type_element(cx, ty)
        }
        Some(Kind::Unused(bytes)) => quote!(#krate::Element::Value(#krate::Codec::Unused(#bytes))),
        Some(Kind::Tmp(wire)) => tmp_element(cx, wire),
        Some(Kind::Custom(custom)) => custom_element(cx, custom),
        Some(Kind::Buffer) => computed("buffer", size_of(cx, described)),
        Some(Kind::Bitmap) => computed("bitmap", size_of(cx, described)),
        Some(Kind::ByteArray) => {
            let max = field.attrs.max.as_ref().map(|max| &max.value);
            quote!(#krate::Element::Value(#krate::Codec::ByteArray { max: #max }))
        }
        Some(Kind::List(list)) => {
            let kind = match list {
                List::TailQueue => quote!(QTailq),
                List::Linked => quote!(QList),
                List::Marked {
                    more,
                    stop,
                    lenient,
                } => quote!(Marked { more: #more, stop: #stop, lenient: #lenient }),
                List::Prefixed(width) => quote!(Prefixed(#width)),
            };
            let child = pointee(element(ty).unwrap_or(ty));
            quote_spanned! {ty.span()=>
                #krate::Element::List(
                    #krate::ListKind::#kind,
                    #krate::DescriptionRef::Static(<#child as #krate::VmState>::DESCRIPTION),
                )
            }
        }
        Some(Kind::Equal) => computed("equal", quote!()),
        Some(Kind::LessOrEqual) => computed("less_or_equal", quote!()),
        Some(Kind::LittleEndian) => computed("little_endian", quote!()),
        Some(Kind::StructVersion(version)) => computed("pinned", version.to_token_stream()),
        Some(Kind::Variant(_)) => {
            let Some(Counter::Field(discriminant)) = &described.count else {
                return type_element(cx, ty);
            };
            let name = discriminant.wire_name();
            let cases = quote_spanned!(ty.span()=> <#ty as #krate::VariantValue>::CASES);
            quote!(#krate::Element::Variant(#krate::Variants::new(#name, #cases)))
        }
    }
}

fn custom_element(cx: &Cx<'_>, custom: &Custom) -> TokenStream {
    let krate = &cx.krate;
    let name = &custom.name;
    let size = match &custom.size {
        Some(size) => quote!(::core::option::Option::Some(#size)),
        None => quote!(::core::option::Option::None),
    };
    quote!(#krate::Element::Value(#krate::Codec::custom(#name, #size)))
}

/// Bytes of a buffer, bits of a bitmap.
fn size_of(cx: &Cx<'_>, described: &Described<'_>) -> TokenStream {
    let krate = &cx.krate;
    let field = described.field;
    let attrs = &field.attrs;
    if let Some(count) = count_of(cx, described) {
        return quote!(#krate::Size::Counted(#count));
    }
    if let Some(given) = attrs.size.as_ref().or(attrs.bits.as_ref()) {
        let given = &given.value;
        return quote!(#krate::Size::Fixed(#given));
    }
    if let Some(range) = &attrs.range {
        let len = range_len(cx, field.ty, range);
        return quote!(#krate::Size::Fixed(#len));
    }
    let ty = field.ty;
    let each: u32 = match field.kind() {
        Some(Kind::Bitmap) => 64,
        _ => 1,
    };
    quote!(#krate::Size::Fixed(#krate::support::element::fixed_len::<#ty>(#each)))
}

fn repeat_of(cx: &Cx<'_>, described: &Described<'_>) -> Option<TokenStream> {
    let krate = &cx.krate;
    let field = described.field;
    let ty = field.ty;
    match field.kind() {
        Some(
            Kind::Tmp(_)
            | Kind::Custom(_)
            | Kind::Buffer
            | Kind::Bitmap
            | Kind::ByteArray
            | Kind::List(_)
            | Kind::Variant(_),
        ) => return None,
        Some(Kind::Unused(_)) if described.count.is_none() => return None,
        _ => {}
    }
    if let Some(count) = count_of(cx, described) {
        return Some(quote!(#krate::Repeat::Counted(#count)));
    }
    if let Some(range) = &field.attrs.range {
        let len = range_len(cx, ty, range);
        let len = units(cx, ty, len);
        return Some(quote!(#krate::Repeat::Array(#len)));
    }
    Some(quote_spanned!(ty.span()=> #krate::value::repeat_of::<#ty>()))
}

/// Elements that `n` values of the sequence `ty` have.
fn units(cx: &Cx<'_>, ty: &Type, n: TokenStream) -> TokenStream {
    let krate = &cx.krate;
    match element(ty) {
        Some(elem) if element(elem).is_some() => {
            quote!(#krate::support::element::units::<#elem>(#n))
        }
        _ => n,
    }
}

fn range_len(cx: &Cx<'_>, ty: &Type, range: &Attr<Range>) -> TokenStream {
    let place = range.key.span();
    let krate = cx.krate_at(place);
    let (from, to) = bounds(ty, &range.value);
    let len = array_len(ty);
    quote_spanned!(place=> #krate::support::element::range_len(#from, #to, #len))
}

fn array_len(ty: &Type) -> TokenStream {
    match shape(ty) {
        Shape::Array(_, len) => len.to_token_stream(),
        _ => quote!(0),
    }
}

fn bounds(ty: &Type, range: &Range) -> (TokenStream, TokenStream) {
    let from = match &range.from {
        Some(from) => from.to_token_stream(),
        None => quote!(0),
    };
    let to = match &range.to {
        Some(to) => to.to_token_stream(),
        None => array_len(ty),
    };
    (from, to)
}

/// The count, for the description.
fn count_of(cx: &Cx<'_>, described: &Described<'_>) -> Option<TokenStream> {
    let krate = &cx.krate;
    let field = described.field;
    let attrs = &field.attrs;
    let max = attrs.max.as_ref()?;
    let place = max.key.span();
    let mut max = max.value.to_token_stream();
    if let (Shape::Array(_, len), false) =
        (shape(field.ty), matches!(field.kind(), Some(Kind::Bitmap)))
    {
        let krate = cx.krate_at(place);
        max = quote_spanned!(place=> #krate::support::element::at_most(#max, #len));
    }
    let max = units(cx, field.ty, max);
    let mut out = match described.count.as_ref()? {
        Counter::Field(counter) => {
            let name = counter.wire_name();
            quote!(#krate::Count::of_field(#name, #max))
        }
        Counter::Own(counter) => {
            let name = member_name(&counter.member);
            quote!(#krate::Count::of_device(#name, #max))
        }
        Counter::With(function) => {
            let name = function_name(function);
            quote!(#krate::Count::of_device(#name, #max))
        }
    };
    let factor = match &attrs.multiply {
        Some(multiply) => multiply.value.to_token_stream(),
        None => quote!(1),
    };
    let nested = element(field.ty).is_some_and(|elem| element(elem).is_some());
    if attrs.multiply.is_some() || nested {
        let factor = units(cx, field.ty, factor);
        out.extend(quote!(.times(#factor)));
    }
    Some(out)
}

/// The last word of a function's path, for people.
fn function_name(function: &Expr) -> LitStr {
    let name = match function {
        Expr::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    };
    LitStr::new(name.as_deref().unwrap_or("computed"), function.span())
}

/// The arm of `count`.
fn counter(cx: &Cx<'_>, described: &Described<'_>) -> Option<TokenStream> {
    if let Some(Kind::Variant(named)) = described.field.kind() {
        let krate = cx.krate_at(named.span());
        let function = quote_spanned!(named.span()=>
            #krate::support::variant::ToDiscriminant::to_discriminant);
        return Some(quote!(#function(&self.#named)));
    }
    let place = described.field.attrs.count.as_ref()?.key.span();
    let krate = cx.krate_at(place);
    let number = match described.count.as_ref()? {
        Counter::Field(counter) | Counter::Own(counter) => {
            let mut member = counter.member.clone();
            if let Member::Named(name) = &mut member {
                name.set_span(place.resolved_at(name.span()));
            }
            quote_spanned!(place=> self.#member)
        }
        Counter::With(function) => {
            let function = callee(function);
            quote_spanned!(place=> #function(self))
        }
    };
    Some(quote_spanned!(place=> #krate::support::access::ToCount::to_count(#number)))
}

pub(super) fn save_tmp(cx: &Cx<'_>, ty: &Type) -> TokenStream {
    let krate = &cx.krate;
    quote!(#krate::support::access::save_tmp::<#ty, _>(self, sink))
}

pub(super) fn load_tmp(cx: &Cx<'_>, ty: &Type) -> TokenStream {
    let krate = &cx.krate;
    quote!(#krate::support::access::load_tmp::<#ty, _>(self, source))
}

/// The arms of `save_field` and `load_field`; none where the engine does everything.
fn access(cx: &Cx<'_>, described: &Described<'_>) -> Option<(TokenStream, TokenStream)> {
    let krate = &cx.krate;
    let field = described.field;
    let member = &field.member;
    let ty = field.ty;
    Some(match field.kind() {
        Some(Kind::Unused(_) | Kind::Skip | Kind::Subsection { .. }) => return None,
        Some(Kind::Tmp(wire)) => (save_tmp(cx, wire), load_tmp(cx, wire)),
        Some(Kind::Custom(custom)) => {
            let (save, load) = (callee(&custom.save), callee(&custom.load));
            (quote!(#save(self, sink)), quote!(#load(self, source)))
        }
        Some(Kind::Variant(_)) => (
            quote_spanned!(ty.span()=> <#ty as #krate::VariantValue>::save_case(&self.#member, sink)),
            quote_spanned!(ty.span()=> <#ty as #krate::VariantValue>::load_case(&mut self.#member, source)),
        ),
        Some(Kind::ByteArray) if is_text(ty) => (
            quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>::save(&self.#member, sink)),
            quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>::load(&mut self.#member, source)),
        ),
        Some(Kind::ByteArray) => (
            quote!(sink.raw(&self.#member)),
            quote!(#krate::support::access::load_bytes(&mut self.#member, source)),
        ),
        _ => match &field.attrs.range {
            Some(range) => {
                let (from, to) = bounds(ty, &range.value);
                let access = quote!(#krate::support::access);
                (
                    quote!(#access::save_range(&self.#member, #from, #to, sink)),
                    quote!(#access::load_range(&mut self.#member, #from, #to, source)),
                )
            }
            None => (
                quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>::save(&self.#member, sink)),
                quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>::load(&mut self.#member, source)),
            ),
        },
    })
}

/// The arm of `load_field` with the field's check behind it.
fn validated(described: &Described<'_>, load: TokenStream) -> TokenStream {
    let field = described.field;
    let Some(validate) = &field.attrs.validate else {
        return load;
    };
    let member = &field.member;
    let check = callee(&validate.value);
    quote! {{
        #load?;
        #check(&self.#member, self).map_err(|reason| source.refuse_field("validate", reason))
    }}
}
