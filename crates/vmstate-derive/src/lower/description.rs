//! One description with its accessors and hooks: the type's own, or that of a part.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Expr, LitStr, Type};

use super::field::FieldCode;
use super::{Cx, callee};
use crate::model::{Attr, Description, Entry, Extra, ExtraKind, Field, Kind, Opt, Subsection};
use crate::types::{Shape, pointee, shape};

/// Methods of `SaveState` and `LoadState`, or of `Part`, which has both.
pub(super) struct Accessors {
    pub(super) save: TokenStream,
    pub(super) load: TokenStream,
}

/// The expression of a description.
pub(super) fn description(cx: &Cx<'_>, plan: &Description<'_>) -> TokenStream {
    let krate = &cx.krate;
    let attrs = plan.attrs;
    let name = attrs.name.as_ref().map_or_else(
        || LitStr::new(&cx.ident().to_string(), cx.ident().span()),
        |name| name.value.clone(),
    );
    let version = number(&attrs.version, || quote!(0));
    let minimum = number(&attrs.minimum_version, || version.clone());
    let fields = plan.entries.iter().map(|entry| match entry {
        Entry::Field(field) => FieldCode::of(cx, field).description,
        Entry::Extra(extra) => extra_description(cx, extra),
    });
    let mut out = quote!(#krate::Description::new(#name, #version, #minimum));
    if !plan.entries.is_empty() {
        out.extend(quote!(.with_fields(const { &[#(#fields),*] })));
    }
    if !plan.subsections.is_empty() {
        let subsections = plan.subsections.iter().map(|subsection| {
            let description = subsection_description(cx, subsection);
            quote!(#krate::DescriptionRef::Static(#description))
        });
        out.extend(quote!(.with_subsections(const { &[#(#subsections),*] })));
    }
    if plan.part.is_none() {
        let attrs = &cx.input.attrs;
        if let Some(priority) = &attrs.priority {
            let priority = &priority.value;
            out.extend(quote!(.with_priority(#krate::Priority::#priority)));
        }
        if attrs.early_setup.is_some() {
            out.extend(quote!(.with_early_setup()));
        }
        if attrs.unmigratable.is_some() {
            out.extend(quote!(.with_unmigratable()));
        }
    }
    quote!(&#out)
}

fn number(attr: &Opt<Expr>, default: impl Fn() -> TokenStream) -> TokenStream {
    attr.as_ref()
        .map_or_else(default, |attr| attr.value.to_token_stream())
}

fn extra_description(cx: &Cx<'_>, extra: &Extra) -> TokenStream {
    let krate = &cx.krate;
    let name = extra
        .name
        .clone()
        .unwrap_or_else(|| LitStr::new("tmp", extra.key.span()));
    match &extra.kind {
        ExtraKind::MustExist(_) => quote!(#krate::Field::validator(#name)),
        ExtraKind::Tmp(ty) => {
            let element = super::field::tmp_element(cx, ty);
            quote!(#krate::Field::new(#name, #element))
        }
    }
}

fn subsection_description(cx: &Cx<'_>, subsection: &Subsection<'_>) -> TokenStream {
    let krate = &cx.krate;
    match subsection {
        Subsection::Part(part) => {
            let number = part.part;
            quote!(<Self as #krate::support::part::Part<#number>>::DESCRIPTION)
        }
        Subsection::Field { field, .. } => {
            let ty = subsection_type(field);
            quote!(<#ty as #krate::VmState>::DESCRIPTION)
        }
    }
}

/// The described type of a field that is a subsection.
pub(super) fn subsection_type<'a>(field: &Field<'a>) -> &'a Type {
    pointee(field.ty)
}

/// One arm for each entry that has `code`.
fn arms<'p, T: ToTokens>(
    plan: &'p Description<'p>,
    code: impl Fn(&'p Entry<'p>) -> Option<T>,
) -> Vec<TokenStream> {
    let arm =
        |(index, entry): (usize, &'p Entry<'p>)| code(entry).map(|code| quote!(#index => #code,));
    plan.entries.iter().enumerate().filter_map(arm).collect()
}

pub(super) fn accessors(cx: &Cx<'_>, plan: &Description<'_>) -> Accessors {
    let krate = &cx.krate;
    let result = quote!(::core::result::Result<(), #krate::Error>);
    let save_arms = arms(plan, |entry| match entry {
        Entry::Field(field) => FieldCode::of(cx, field).save,
        Entry::Extra(extra) => match &extra.kind {
            ExtraKind::Tmp(ty) => Some(super::field::save_tmp(cx, ty)),
            ExtraKind::MustExist(_) => None,
        },
    });
    let load_arms = arms(plan, |entry| match entry {
        Entry::Field(field) => FieldCode::of(cx, field).load,
        Entry::Extra(extra) => match &extra.kind {
            ExtraKind::Tmp(ty) => Some(super::field::load_tmp(cx, ty)),
            ExtraKind::MustExist(_) => None,
        },
    });
    let exists_arms = arms(plan, |entry| match entry {
        Entry::Field(field) => field.field.attrs.exists.as_ref().map(|attr| {
            let function = callee(&attr.value);
            quote!(#function(self, version))
        }),
        Entry::Extra(extra) => match &extra.kind {
            ExtraKind::MustExist(test) => {
                let function = callee(test);
                Some(quote!(#function(self, version)))
            }
            ExtraKind::Tmp(_) => None,
        },
    });
    let count_arms = arms(plan, |entry| match entry {
        Entry::Field(field) => FieldCode::of(cx, field).count,
        Entry::Extra(_) => None,
    });

    let configured = arms(plan, |entry| match entry {
        Entry::Field(field) => field.is_configured().then(|| quote!(true)),
        Entry::Extra(_) => None,
    });

    let no_field = quote!(::core::result::Result::Err(#krate::support::access::no_field(field)));
    let ignore =
        |name: TokenStream, arms: &[TokenStream]| arms.is_empty().then(|| quote!(let _ = #name;));
    let ignore_sink = ignore(quote!(sink), &save_arms);
    let ignore_source = ignore(quote!(source), &load_arms);
    let mut save = quote! {
        fn save_field(&self, field: usize, sink: &mut dyn #krate::SaveField) -> #result {
            #ignore_sink
            match field {
                #(#save_arms)*
                _ => #no_field,
            }
        }
    };
    let mut load = quote! {
        fn load_field(&mut self, field: usize, source: &mut dyn #krate::LoadField) -> #result {
            #ignore_source
            match field {
                #(#load_arms)*
                _ => #no_field,
            }
        }
    };
    if !exists_arms.is_empty() {
        save.extend(quote! {
            fn exists(&self, field: usize, version: u32) -> bool {
                match field {
                    #(#exists_arms)*
                    _ => true,
                }
            }
        });
    }
    if !count_arms.is_empty() {
        save.extend(quote! {
            fn count(&self, field: usize) -> ::core::option::Option<i64> {
                ::core::option::Option::Some(match field {
                    #(#count_arms)*
                    _ => return ::core::option::Option::None,
                })
            }
        });
    }
    if !configured.is_empty() {
        save.extend(quote! {
            fn is_configured(&self, field: usize) -> bool {
                match field {
                    #(#configured)*
                    _ => false,
                }
            }
        });
    }
    subsections(cx, plan, &mut save, &mut load);
    hooks(cx, plan, &mut save, &mut load);
    Accessors { save, load }
}

fn subsections(
    cx: &Cx<'_>,
    plan: &Description<'_>,
    save: &mut TokenStream,
    load: &mut TokenStream,
) {
    if plan.subsections.is_empty() {
        return;
    }
    let krate = &cx.krate;
    let result = quote!(::core::result::Result<(), #krate::Error>);
    let ok = quote!(::core::result::Result::Ok(()));
    let mut save_arms = Vec::new();
    let mut load_arms = Vec::new();
    for (index, subsection) in plan.subsections.iter().enumerate() {
        let (save, load) = match subsection {
            Subsection::Part(part) => {
                let number = part.part;
                let part = quote!(#krate::support::part::PartOf::<_, #number>);
                (quote!(visit(&#part(self))), quote!(visit(&mut #part(self))))
            }
            Subsection::Field { field, needed } => {
                let member = &field.member;
                let ty = field.ty;
                if let Shape::Option(inner) = shape(ty) {
                    let (get, get_mut) = match shape(inner) {
                        Shape::Box(_) => (quote!(&**), quote!(&mut **)),
                        _ => (quote!(), quote!()),
                    };
                    (
                        quote! {
                            match &self.#member {
                                ::core::option::Option::Some(subsection) => visit(#get subsection),
                                ::core::option::Option::None => #ok,
                            }
                        },
                        quote! {
                            visit(#get_mut self.#member.get_or_insert_with(
                                <#inner as ::core::default::Default>::default,
                            ))
                        },
                    )
                } else {
                    let (get, get_mut) = match shape(ty) {
                        Shape::Box(_) => (quote!(&*), quote!(&mut *)),
                        _ => (quote!(&), quote!(&mut)),
                    };
                    let visit = quote!(visit(#get self.#member));
                    let save = match needed {
                        None => visit,
                        Some(needed) => {
                            let needed = callee(needed);
                            quote!(if #needed(self) { #visit } else { #ok })
                        }
                    };
                    (save, quote!(visit(#get_mut self.#member)))
                }
            }
        };
        save_arms.push(quote!(#index => #save,));
        load_arms.push(quote!(#index => #load,));
    }
    save.extend(quote! {
        fn save_subsection(
            &self,
            subsection: usize,
            visit: &mut dyn ::core::ops::FnMut(&dyn #krate::SaveState) -> #result,
        ) -> #result {
            match subsection {
                #(#save_arms)*
                _ => #ok,
            }
        }
    });
    load.extend(quote! {
        fn load_subsection(
            &mut self,
            subsection: usize,
            visit: &mut dyn ::core::ops::FnMut(&mut dyn #krate::LoadState) -> #result,
        ) -> #result {
            match subsection {
                #(#load_arms)*
                _ => #ok,
            }
        }
    });
}

fn hooks(cx: &Cx<'_>, plan: &Description<'_>, save: &mut TokenStream, load: &mut TokenStream) {
    let krate = &cx.krate;
    let attrs = plan.attrs;
    let refusal = quote!(::core::result::Result<(), #krate::Reason>);
    let call = |attr: &Attr<Expr>| callee(&attr.value);
    if let Some(function) = attrs.needed.as_ref().map(call) {
        save.extend(quote! {
            fn needed(&self) -> bool {
                #function(self)
            }
        });
    }
    if let Some(function) = attrs.pre_save.as_ref().map(call) {
        save.extend(quote! {
            fn pre_save(&self) -> #refusal {
                #function(self)
            }
        });
    }
    if let Some(function) = attrs.post_save.as_ref().map(call) {
        save.extend(quote! {
            fn post_save(&self) {
                #function(self);
            }
        });
    }
    let defaults = if plan.part.is_none() {
        defaults(cx)
    } else {
        Vec::new()
    };
    let pre_load = attrs.pre_load.as_ref().map(call);
    if pre_load.is_some() || !defaults.is_empty() {
        let last = match pre_load {
            Some(function) => quote!(#function(self)),
            None => quote!(::core::result::Result::Ok(())),
        };
        load.extend(quote! {
            fn pre_load(&mut self) -> #refusal {
                #(#defaults)*
                #last
            }
        });
    }
    if let Some(function) = attrs.post_load.as_ref().map(call) {
        load.extend(quote! {
            fn post_load(&mut self, version: u32) -> #refusal {
                #function(self, version)
            }
        });
    }
}

/// What fields are set to before loading, also those of subsections, which may be missing.
fn defaults(cx: &Cx<'_>) -> Vec<TokenStream> {
    let crate::model::Body::Struct(fields) = &cx.input.body else {
        return Vec::new();
    };
    let default = |field: &Field<'_>| {
        let member = &field.member;
        if let Some(default) = &field.attrs.default {
            let value = &default.value;
            return Some(quote!(self.#member = #value;));
        }
        match (field.kind(), shape(field.ty)) {
            (Some(Kind::Subsection { .. }), Shape::Option(_)) => {
                Some(quote!(self.#member = ::core::option::Option::None;))
            }
            _ => None,
        }
    };
    fields.iter().filter_map(default).collect()
}
