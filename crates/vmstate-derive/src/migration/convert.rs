//! Code of one field: into the mirror, and the two phases of the way back.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::Cx;
use super::field::{How, Planned};
use super::types::default_of;
use crate::lower::callee;

impl Planned<'_> {
    /// Copies the field into the mirror, `into`.
    pub(super) fn snapshot(&self, cx: &Cx<'_>) -> TokenStream {
        let Self {
            ty, field, main, ..
        } = self;
        let place = ty.span();
        let support = cx.support();
        let located = self.located();
        let mut code = match &self.how {
            How::Recurse => {
                let plain = cx.plain();
                quote_spanned! {place=>
                    <#ty as #plain>::snapshot_migration_state(#field, &mut into.#main) #located?;
                }
            }
            How::Clone => quote_spanned! {place=>
                <#ty as ::core::clone::Clone>::clone_from(&mut into.#main, #field);
            },
            How::Into { ty: target, clone } => {
                let value = self.taken(cx, *clone);
                quote_spanned! {target.span()=>
                    into.#main = <#ty as ::core::convert::Into<#target>>::into(#value);
                }
            }
            How::TryInto { ty: target, clone } => {
                let value = self.taken(cx, *clone);
                let convert = quote_spanned! {target.span()=>
                    <#ty as ::core::convert::TryInto<#target>>::try_into(#value)
                };
                quote! {
                    into.#main = match #convert {
                        ::core::result::Result::Ok(value) => value,
                        ::core::result::Result::Err(error) => {
                            #[allow(unused_imports)]
                            use #support::NotShown as _;
                            let shown = #support::Value(#field).shown();
                            return ::core::result::Result::Err(#support::refused(error, shown)) #located;
                        }
                    };
                }
            }
            How::Nothing | How::Omit { .. } => quote!(),
        };
        if let Some(len) = &self.len {
            code.extend(quote! {
                into.#len = #support::length(into.#main.len()) #located?;
            });
        }
        if let Some(present) = &self.present {
            code.extend(quote!(into.#present = into.#main.is_some();));
        }
        code
    }

    /// The field's value, out of a reference.
    fn taken(&self, cx: &Cx<'_>, clone: bool) -> TokenStream {
        let Self { ty, field, .. } = self;
        let place = ty.span();
        if clone {
            quote_spanned!(place=> <#ty as ::core::clone::Clone>::clone(#field))
        } else {
            let support = cx.support();
            quote_spanned!(place=> <#ty as #support::CopyOut>::copy_out(#field))
        }
    }

    /// `.map_err(…)` with the field's name.
    fn located(&self) -> TokenStream {
        let name = &self.name;
        quote!(.map_err(|error| error.in_field(#name)))
    }

    /// Fields of the mirror in a pattern: those whose value is wanted have a name.
    pub(super) fn mirror_pattern(&self) -> TokenStream {
        let Self { main, value, .. } = self;
        let fields = self.mirror.iter().map(|f| {
            let ident = &f.ident;
            if ident == main && !matches!(self.how, How::Nothing) {
                quote!(#ident: #value,)
            } else {
                quote!(#ident: _,)
            }
        });
        quote!(#(#fields)*)
    }

    /// The field in a pattern.
    pub(super) fn pattern(&self) -> TokenStream {
        let Self { member, field, .. } = self;
        match self.how {
            How::Nothing | How::Omit { .. } => quote!(#member: _,),
            _ => quote!(#member: #field,),
        }
    }

    /// The first phase.
    pub(super) fn prepare(&self, cx: &Cx<'_>) -> TokenStream {
        let Self {
            ty,
            field,
            value,
            ready,
            ..
        } = self;
        let located = self.located();
        match &self.how {
            How::Recurse if cx.attrs.shared.is_some() => {
                let shared = cx.shared();
                quote_spanned! {ty.span()=>
                    let #ready = <#ty as #shared>::prepare_restore(#field, #value, version_id) #located?;
                }
            }
            How::Recurse => {
                let plain = cx.plain();
                quote_spanned! {ty.span()=>
                    let #ready = <#ty as #plain>::prepare_restore_mut(#field, #value, version_id) #located?;
                }
            }
            How::Clone => quote!(let #ready = #value;),
            How::Into { .. } | How::TryInto { .. } => {
                let converted = self.converted(cx);
                quote!(let #ready: #ty = #converted;)
            }
            How::Nothing | How::Omit { .. } => quote!(),
        }
    }

    /// The second phase.
    pub(super) fn commit(&self) -> TokenStream {
        let Self { field, ready, .. } = self;
        match &self.how {
            How::Recurse => quote!(#ready();),
            How::Clone | How::Into { .. } | How::TryInto { .. } => quote!(*#field = #ready;),
            How::Nothing | How::Omit { .. } => quote!(),
        }
    }

    /// An expression: the runtime value of what came.
    fn converted(&self, cx: &Cx<'_>) -> TokenStream {
        let Self { ty, value, .. } = self;
        let support = cx.support();
        let located = self.located();
        match &self.how {
            How::Into { ty: target, .. } => quote_spanned! {target.span()=>
                <#target as ::core::convert::Into<#ty>>::into(#value)
            },
            How::TryInto { ty: target, .. } => {
                let convert = quote_spanned! {target.span()=>
                    <#target as ::core::convert::TryInto<#ty>>::try_into(#value)
                };
                quote! {{
                    #[allow(unused_imports)]
                    use #support::NotShown as _;
                    let shown = #support::Value(&#value).shown();
                    match #convert {
                        ::core::result::Result::Ok(value) => value,
                        ::core::result::Result::Err(error) => {
                            return ::core::result::Result::Err(#support::refused(error, shown)) #located;
                        }
                    }
                }}
            }
            _ => quote!(#value),
        }
    }

    /// An expression: a new runtime value.
    pub(super) fn build(&self, cx: &Cx<'_>) -> TokenStream {
        let Self { ty, value, .. } = self;
        let located = self.located();
        match &self.how {
            How::Recurse => {
                let plain = cx.plain();
                quote_spanned! {ty.span()=> {
                    let mut new = <#ty as ::core::default::Default>::default();
                    <#ty as #plain>::restore_migrated_state_mut(&mut new, #value, version_id) #located?;
                    new
                }}
            }
            How::Nothing | How::Omit { .. } => default_of(ty),
            How::Clone | How::Into { .. } | How::TryInto { .. } => self.converted(cx),
        }
    }

    /// Asks the validator about what came, in `from`.
    pub(super) fn check(&self, cx: &Cx<'_>) -> TokenStream {
        let Some(validate) = &self.validate else {
            return quote!();
        };
        let (main, support, located) = (&self.main, cx.support(), self.located());
        let call = callee(validate);
        let call = quote_spanned!(validate.span()=> #call(&from.#main, &*self));
        quote! {
            if let ::core::result::Result::Err(reason) = #call {
                #[allow(unused_imports)]
                use #support::NotShown as _;
                let shown = #support::Value(&from.#main).shown();
                return ::core::result::Result::Err(#support::refused(reason, shown)) #located;
            }
        }
    }
}
