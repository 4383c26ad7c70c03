//! The server half: a trait with one handler for each method of the service, and a type that
//! registers them.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

use super::{Method, Service};
use crate::model::CallType;

/// The module with the handlers of a service.
pub(super) fn module(service: &Service, default_stubs: bool) -> TokenStream {
    let Service {
        full_name,
        server_module,
        server_mod_attributes,
        ..
    } = service;
    let module_documentation = format!(" Server of the service `{full_name}`.");
    let handlers = handlers(service, default_stubs);
    let server = server(service);

    quote! {
        #[doc = #module_documentation]
        #server_mod_attributes
        pub mod #server_module {
            #handlers
            #server

            /// The full proto name of the service.
            pub const SERVICE_NAME: &str = #full_name;
        }
    }
}

/// How a handler answers.
enum Reply {
    /// Once. The caller does not tell the handler whether it called other nodes as well.
    One,
    Never,
    Streamed,
}

impl Reply {
    fn of(call_type: CallType) -> Self {
        match call_type {
            CallType::Rpc | CallType::QuorumCall => Self::One,
            CallType::Unicast | CallType::Multicast => Self::Never,
            CallType::StreamedQuorumCall => Self::Streamed,
        }
    }
}

/// The trait that users implement.
fn handlers(service: &Service, default_stubs: bool) -> TokenStream {
    let Service {
        full_name,
        handlers,
        trait_attributes,
        ..
    } = service;
    let documentation =
        service.documentation_or(&format!("Handlers of the service `{full_name}`."));
    let methods = service
        .methods
        .iter()
        .map(|method| handler(method, default_stubs));
    quote! {
        #documentation
        #trait_attributes
        pub trait #handlers: ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#methods)*
        }
    }
}

fn handler(method: &Method, default_stubs: bool) -> TokenStream {
    let Method {
        name,
        full_name,
        request,
        response,
        ..
    } = method;
    let reply = Reply::of(method.call_type);
    let sentence = match reply {
        Reply::One => format!("Handles `{full_name}`."),
        Reply::Never => format!("Handles `{full_name}`, which has no reply."),
        Reply::Streamed => format!("Handles `{full_name}` by any number of replies."),
    };
    let documentation = method.documentation_or(&sentence);
    let replies = match reply {
        Reply::One | Reply::Never => None,
        Reply::Streamed => Some(quote!(, replies: ::gorums::ReplySender<#response>)),
    };
    let output = match reply {
        Reply::One => quote!(::core::result::Result<#response, ::gorums::Status>),
        Reply::Never => quote!(()),
        Reply::Streamed => quote!(::core::result::Result<(), ::gorums::Status>),
    };
    let body = if default_stubs {
        stub(method, &reply)
    } else {
        quote!(;)
    };
    quote! {
        #documentation
        fn #name(
            &self,
            ctx: ::gorums::ServerCtx,
            request: #request
            #replies
        ) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
        #body
    }
}

/// The body of a handler that the user did not write.
fn stub(method: &Method, reply: &Reply) -> TokenStream {
    let unused = match reply {
        Reply::One | Reply::Never => quote!(let _ = (ctx, request);),
        Reply::Streamed => quote!(let _ = (ctx, request, replies);),
    };
    let message = format!("{} is not implemented", method.full_name);
    let output = match reply {
        // There is nobody to tell.
        Reply::Never => quote!(()),
        Reply::One | Reply::Streamed => quote! {
            ::core::result::Result::Err(
                ::gorums::Status::new(::gorums::Code::Unimplemented, #message)
            )
        },
    };
    quote! {
        {
            #unused
            ::core::future::ready(#output)
        }
    }
}

/// The type that is added to a server.
fn server(service: &Service) -> TokenStream {
    let Service {
        full_name,
        server,
        handlers,
        server_attributes,
        ..
    } = service;
    let name = server.to_string();
    let implementor = implementor(service);
    let documentation = format!(
        " The service `{full_name}`, to be added to a server. Clones share one set of handlers."
    );
    let registrations = service
        .methods
        .iter()
        .map(|method| registration(service, method));
    quote! {
        #[doc = #documentation]
        #server_attributes
        pub struct #server<#implementor> {
            service: ::std::sync::Arc<#implementor>,
            max_decoding: ::core::option::Option<usize>,
            max_encoding: ::core::option::Option<usize>,
        }

        impl<#implementor: #handlers> #server<#implementor> {
            /// Makes a service of its handlers.
            pub fn new(service: #implementor) -> Self {
                Self::from_arc(::std::sync::Arc::new(service))
            }

            /// Makes a service of handlers that others hold too.
            pub fn from_arc(service: ::std::sync::Arc<#implementor>) -> Self {
                Self {
                    service,
                    max_decoding: ::core::option::Option::None,
                    max_encoding: ::core::option::Option::None,
                }
            }

            /// Refuses requests of more than this many bytes.
            #[must_use]
            pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
                self.max_decoding = ::core::option::Option::Some(limit);
                self
            }

            /// Refuses to send replies of more than this many bytes.
            #[must_use]
            pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
                self.max_encoding = ::core::option::Option::Some(limit);
                self
            }
        }

        impl<#implementor: #handlers> ::gorums::server::Service for #server<#implementor> {
            fn name(&self) -> &'static str {
                SERVICE_NAME
            }

            fn register(self, registry: &mut ::gorums::server::Registry) {
                registry.limits(self.max_decoding, self.max_encoding);
                #(#registrations)*
            }
        }

        impl<#implementor> ::core::clone::Clone for #server<#implementor> {
            fn clone(&self) -> Self {
                Self {
                    service: ::std::sync::Arc::clone(&self.service),
                    max_decoding: self.max_decoding,
                    max_encoding: self.max_encoding,
                }
            }
        }

        impl<#implementor> ::core::fmt::Debug for #server<#implementor> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name)
                    .field("max_decoding", &self.max_decoding)
                    .field("max_encoding", &self.max_encoding)
                    .finish_non_exhaustive()
            }
        }
    }
}

/// The type parameter that stands for the user's handlers.
fn implementor(service: &Service) -> Ident {
    let name = if service.handlers == "T" { "H" } else { "T" };
    Ident::new(name, Span::call_site())
}

fn registration(service: &Service, method: &Method) -> TokenStream {
    let handlers = &service.handlers;
    let implementor = implementor(service);
    let Method {
        name,
        full_name,
        request,
        response,
        ..
    } = method;
    let (register, parameter, argument) = match Reply::of(method.call_type) {
        Reply::One => (quote!(unary), None, None),
        Reply::Never => (quote!(one_way), None, None),
        Reply::Streamed => (
            quote!(streaming),
            Some(quote!(, replies: ::gorums::ReplySender<#response>)),
            Some(quote!(, replies)),
        ),
    };
    // The handler is named through its trait: a method called `Into` or `Borrow` is also one of
    // `Arc`.
    quote! {
        let service = ::std::sync::Arc::clone(&self.service);
        registry.#register(
            #full_name,
            move |ctx: ::gorums::ServerCtx, request: #request #parameter| {
                let service = ::std::sync::Arc::clone(&service);
                async move { <#implementor as #handlers>::#name(&*service, ctx, request #argument).await }
            },
        );
    }
}
