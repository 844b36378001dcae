//! `#[derive(ToMigrationState)]`: a mirror, described by `#[derive(VmState)]`, and the way there and back.

mod attrs;
mod bounds;
mod convert;
mod enumeration;
mod field;
mod mirror;
mod structure;
mod types;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Generics, Ident, Result};

use self::attrs::ContainerAttrs;
use crate::krate;
use crate::parse::Errors;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut errors = Errors::default();
    let attrs = attrs::container(&input.attrs, &mut errors);
    let cx = Cx {
        krate: krate::path(attrs.krate.as_ref().map(|attr| &attr.value)),
        input,
        attrs,
    };
    match &input.data {
        Data::Struct(data) => structure::expand(&cx, data, errors),
        Data::Enum(data) => enumeration::expand(&cx, data, errors),
        Data::Union(data) => Err(Error::new(
            data.union_token.span,
            "a union does not say which of its fields is alive: implement `ToMigrationState` by hand",
        )),
    }
}

/// What everything here needs.
struct Cx<'a> {
    /// Path of `vmstate-desc`.
    krate: TokenStream,
    input: &'a DeriveInput,
    attrs: ContainerAttrs,
}

impl Cx<'_> {
    fn mirror(&self) -> Ident {
        match &self.attrs.rename {
            Some(rename) => rename.value.clone(),
            None => format_ident!("{}Migration", self.input.ident),
        }
    }

    fn plain(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::snapshot::ToMigrationState)
    }

    fn shared(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::snapshot::ToMigrationStateShared)
    }

    fn error(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::snapshot::InvalidError)
    }

    fn support(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::support::snapshot)
    }

    /// The impls, from the bodies of their methods.
    fn impls(&self, generics: &Generics, migrated: &TokenStream, bodies: &Bodies) -> TokenStream {
        let ident = &self.input.ident;
        let (plain, error) = (self.plain(), self.error());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let ok = quote!(::core::result::Result::Ok(()));
        let result = quote!(::core::result::Result<(), #error>);
        let prepared = quote!(::core::result::Result<impl ::core::ops::FnOnce(), #error>);
        let Bodies { snapshot, prepare } = bodies;
        let prepare_mut = if self.attrs.shared.is_some() {
            let shared = self.shared();
            quote!(<Self as #shared>::prepare_restore(self, from, version_id))
        } else {
            prepare.clone()
        };
        let shared = self.attrs.shared.as_ref().map(|_| {
            let shared = self.shared();
            quote! {
                #[automatically_derived]
                impl #impl_generics #shared for #ident #ty_generics #where_clause {
                    fn restore_migrated_state(
                        &self,
                        from: <Self as #plain>::Migrated,
                        version_id: u32,
                    ) -> #result {
                        let commit = <Self as #shared>::prepare_restore(self, from, version_id)?;
                        commit();
                        #ok
                    }

                    fn prepare_restore(
                        &self,
                        from: <Self as #plain>::Migrated,
                        version_id: u32,
                    ) -> #prepared {
                        let _ = version_id;
                        #prepare
                    }
                }
            }
        });
        quote! {
            #[automatically_derived]
            // `try_into` where one direction could not fail, `into` the same type.
            #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
            impl #impl_generics #plain for #ident #ty_generics #where_clause {
                type Migrated = #migrated;

                fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> #result {
                    #snapshot
                    #ok
                }

                fn restore_migrated_state_mut(
                    &mut self,
                    from: Self::Migrated,
                    version_id: u32,
                ) -> #result {
                    let commit = <Self as #plain>::prepare_restore_mut(self, from, version_id)?;
                    commit();
                    #ok
                }

                fn prepare_restore_mut(
                    &mut self,
                    from: Self::Migrated,
                    version_id: u32,
                ) -> #prepared {
                    let _ = version_id;
                    #prepare_mut
                }
            }

            #shared
        }
    }
}

/// Bodies of methods.
struct Bodies {
    snapshot: TokenStream,
    /// Of the shared one, if there is one.
    prepare: TokenStream,
}
