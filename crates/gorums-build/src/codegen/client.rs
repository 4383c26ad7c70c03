//! The client half: a type with one method for each method of the service.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::{Method, Service};
use crate::model::CallType;

/// The module with the client of a service.
pub(super) fn module(service: &Service) -> TokenStream {
    let Service {
        full_name,
        client_module,
        client,
        client_attributes,
        client_mod_attributes,
        ..
    } = service;
    let module_documentation = format!(" Client of the service `{full_name}`.");
    let documentation = service.documentation_or(&format!("Calls the service `{full_name}`."));
    let methods = service.methods.iter().map(method);
    let defaults = service.methods.iter().map(|method| {
        let (name, builder) = (&method.name, builder(method));
        quote!(#name: ::gorums::codegen::MethodDefaults<#builder>)
    });

    quote! {
        #[doc = #module_documentation]
        #client_mod_attributes
        pub mod #client_module {
            #documentation
            #client_attributes
            #[derive(Debug, Clone)]
            pub struct #client {
                client: ::gorums::Client,
                defaults: ::std::sync::Arc<Defaults>,
            }

            #[derive(Debug, Clone, Default)]
            struct Defaults {
                #(#defaults,)*
            }

            impl #client {
                /// Makes a client that calls the nodes of a configuration, or those that a
                /// membership has at the time of each call.
                pub fn new(
                    nodes: impl ::core::convert::Into<::gorums::membership::Nodes>,
                ) -> Self {
                    Self {
                        client: ::gorums::Client::new(nodes),
                        defaults: ::core::default::Default::default(),
                    }
                }

                /// The configuration that is called, at this moment.
                pub fn configuration(&self) -> ::gorums::Configuration {
                    self.client.configuration()
                }

                /// Makes a client with the same settings that calls another configuration or
                /// membership.
                #[must_use]
                pub fn on(
                    &self,
                    nodes: impl ::core::convert::Into<::gorums::membership::Nodes>,
                ) -> Self {
                    Self {
                        client: self.client.on(nodes),
                        defaults: ::std::sync::Arc::clone(&self.defaults),
                    }
                }

                /// Ends every call of this client after a time, unless the call has a deadline of
                /// its own.
                #[must_use]
                pub fn with_timeout(mut self, timeout: ::core::time::Duration) -> Self {
                    self.client = self.client.with_timeout(timeout);
                    self
                }

                /// Sends a name and a value with every request of this client.
                #[must_use]
                pub fn with_metadata(
                    mut self,
                    key: impl ::core::convert::AsRef<str>,
                    value: impl ::core::convert::Into<::std::string::String>,
                ) -> Self {
                    self.client = self.client.with_metadata(key, value);
                    self
                }

                /// Adds an interceptor, which sees every call of this client, after those that were
                /// added before.
                #[must_use]
                pub fn with_interceptor(
                    mut self,
                    interceptor: impl ::gorums::call::ClientInterceptor,
                ) -> Self {
                    self.client = self.client.with_interceptor(interceptor);
                    self
                }

                /// Has quorum calls of this client ask a quorum in place of all nodes, where that is
                /// allowed.
                #[must_use]
                pub fn with_thrifty(mut self, thrifty: ::gorums::call::Thrifty) -> Self {
                    self.client = self.client.with_thrifty(thrifty);
                    self
                }

                /// Refuses replies of more than this many bytes.
                #[must_use]
                pub fn with_max_decoding_message_size(mut self, limit: usize) -> Self {
                    self.client = self.client.with_max_decoding_message_size(limit);
                    self
                }

                /// Refuses to send requests of more than this many bytes.
                #[must_use]
                pub fn with_max_encoding_message_size(mut self, limit: usize) -> Self {
                    self.client = self.client.with_max_encoding_message_size(limit);
                    self
                }

                #(#methods)*
            }
        }
    }
}

fn method(method: &Method) -> TokenStream {
    let Method {
        name,
        full_name,
        request,
        ..
    } = method;
    let documentation = method.documentation_or(&default_sentence(method));
    let deprecated = method.deprecated.then(|| quote!(#[deprecated]));
    let builder = builder(method);
    let node = match method.call_type {
        CallType::Rpc | CallType::Unicast => Some(quote!(node: &::gorums::Node,)),
        _ => None,
    };
    let call = match method.call_type {
        CallType::Rpc => quote!(rpc(node, #full_name, request)),
        CallType::Unicast => quote!(unicast(node, #full_name, request)),
        CallType::Multicast => quote!(multicast(#full_name, request)),
        CallType::QuorumCall => quote!(quorum_call(#full_name, request)),
        CallType::StreamedQuorumCall => quote!(streamed_quorum_call(#full_name, request)),
    };
    // Nothing tells that a message without an answer was read, so none is sent again.
    let is_answered = !matches!(method.call_type, CallType::Unicast | CallType::Multicast);
    let idempotent = (method.is_idempotent && is_answered).then(|| quote!(.idempotent(true)));
    let set_defaults = defaults_name(method);
    let defaults_documentation = format!(
        " Sets what every call of [`{name}`](Self::{name}) of this client begins with, such as a timeout, in place of what was set before.",
    );
    quote! {
        #documentation
        #deprecated
        pub fn #name(&self, #node request: #request) -> #builder {
            self.defaults.#name.apply(self.client.#call #idempotent)
        }

        #[doc = #defaults_documentation]
        #deprecated
        #[must_use]
        pub fn #set_defaults(
            mut self,
            defaults: impl ::core::ops::Fn(#builder) -> #builder
                + ::core::marker::Send
                + ::core::marker::Sync
                + 'static,
        ) -> Self {
            ::std::sync::Arc::make_mut(&mut self.defaults).#name.set(defaults);
            self
        }
    }
}

/// What a method returns.
fn builder(method: &Method) -> TokenStream {
    let Method {
        request, response, ..
    } = method;
    match method.call_type {
        CallType::Rpc => quote!(::gorums::call::Rpc<#request, #response>),
        CallType::Unicast => quote!(::gorums::call::Unicast<#request>),
        CallType::Multicast => quote!(::gorums::call::Multicast<#request>),
        CallType::QuorumCall | CallType::StreamedQuorumCall => {
            quote!(::gorums::call::QuorumCall<#request, #response>)
        }
    }
}

/// No method has this name, since `with_…` belongs to the client.
fn defaults_name(method: &Method) -> Ident {
    let name = method.name.to_string();
    let name = name.trim_start_matches("r#").trim_matches('_');
    format_ident!("with_{name}_defaults")
}

fn default_sentence(method: &Method) -> String {
    let name = &method.full_name;
    match method.call_type {
        CallType::Rpc => format!("Calls `{name}` on one node."),
        CallType::Unicast => format!("Sends `{name}` to one node, which does not reply."),
        CallType::Multicast => {
            format!("Sends `{name}` to every node of the configuration. They do not reply.")
        }
        CallType::QuorumCall => format!("Calls `{name}` on every node of the configuration."),
        CallType::StreamedQuorumCall => format!(
            "Calls `{name}` on every node of the configuration. Each may reply any number of times."
        ),
    }
}
