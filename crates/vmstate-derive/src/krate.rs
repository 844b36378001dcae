//! Where the expansion finds `vmstate-desc`.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Ident, Path};

/// The path that was given, or that of the dependency that the user's package has: `vmstate-desc` itself, or the facade.
pub(crate) fn path(given: Option<&Path>) -> TokenStream {
    if let Some(path) = given {
        return quote!(#path);
    }
    if let Ok(found) = crate_name("vmstate-desc") {
        let name = name(found, "vmstate_desc");
        return quote!(::#name);
    }
    if let Ok(found) = crate_name("vmstate") {
        let name = name(found, "vmstate");
        return quote!(::#name::desc);
    }
    quote!(::vmstate_desc)
}

fn name(found: FoundCrate, own: &str) -> Ident {
    match found {
        FoundCrate::Itself => Ident::new(own, Span::call_site()),
        FoundCrate::Name(name) => Ident::new(&name, Span::call_site()),
    }
}
