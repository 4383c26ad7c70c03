//! The client half: a type with one method for each method of the service.

use proc_macro2::TokenStream;
use quote::quote;

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

    quote! {
        #[doc = #module_documentation]
        #client_mod_attributes
        pub mod #client_module {
            #documentation
            #client_attributes
            #[derive(Debug, Clone)]
            pub struct #client {
                client: ::gorums::Client,
            }

            impl #client {
                /// Makes a client that calls the nodes of a configuration.
                pub fn new(
                    configuration: impl ::core::convert::Into<::gorums::Configuration>,
                ) -> Self {
                    Self { client: ::gorums::Client::new(configuration) }
                }

                /// The configuration that is called.
                pub fn configuration(&self) -> &::gorums::Configuration {
                    self.client.configuration()
                }

                /// Makes a client with the same settings that calls another configuration.
                #[must_use]
                pub fn on(
                    &self,
                    configuration: impl ::core::convert::Into<::gorums::Configuration>,
                ) -> Self {
                    Self { client: self.client.on(configuration) }
                }

                /// Ends every call of this client after a time, unless the call has a deadline of its own.
                #[must_use]
                pub fn with_timeout(self, timeout: ::core::time::Duration) -> Self {
                    Self { client: self.client.with_timeout(timeout) }
                }

                /// Refuses replies of more than this many bytes.
                #[must_use]
                pub fn with_max_decoding_message_size(self, limit: usize) -> Self {
                    Self { client: self.client.with_max_decoding_message_size(limit) }
                }

                /// Refuses to send requests of more than this many bytes.
                #[must_use]
                pub fn with_max_encoding_message_size(self, limit: usize) -> Self {
                    Self { client: self.client.with_max_encoding_message_size(limit) }
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
        response,
        ..
    } = method;
    let documentation = method.documentation_or(&default_sentence(method));
    let deprecated = method.deprecated.then(|| quote!(#[deprecated]));
    let body = match method.call_type {
        CallType::Rpc => quote! {
            pub fn #name(
                &self,
                node: &::gorums::Node,
                request: #request,
            ) -> ::gorums::Rpc<#request, #response> {
                self.client.rpc(node, #full_name, request)
            }
        },
        CallType::Unicast => quote! {
            pub fn #name(
                &self,
                node: &::gorums::Node,
                request: #request,
            ) -> ::gorums::Unicast<#request> {
                self.client.unicast(node, #full_name, request)
            }
        },
        CallType::Multicast => quote! {
            pub fn #name(&self, request: #request) -> ::gorums::Multicast<#request> {
                self.client.multicast(#full_name, request)
            }
        },
        CallType::QuorumCall => quote! {
            pub fn #name(&self, request: #request) -> ::gorums::QuorumCall<#request, #response> {
                self.client.quorum_call(#full_name, request)
            }
        },
        CallType::StreamedQuorumCall => quote! {
            pub fn #name(&self, request: #request) -> ::gorums::QuorumCall<#request, #response> {
                self.client.streamed_quorum_call(#full_name, request)
            }
        },
    };
    quote! {
        #documentation
        #deprecated
        #body
    }
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
