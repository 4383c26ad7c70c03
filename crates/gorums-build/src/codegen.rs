//! From checked services to Rust code.
//!
//! prost writes the messages of a package, and calls [`Generator`] for each service, so that both
//! end up in one file.

use std::collections::BTreeSet;
use std::str::FromStr;

use proc_macro2::{Ident, Literal, Span, TokenStream};
use prost_build::{Comments, Module, ServiceGenerator};
use prost_types::method_options::IdempotencyLevel;
use quote::{ToTokens, quote};

use crate::error::Error;
use crate::model::{self, CallType, Services, full_name};
use crate::naming::MethodName;
use crate::output::descriptors_file;
use crate::patterns::{Pattern, starts_with_parts};
use crate::reflection;

mod client;
mod server;

/// The version of the contract between generated code and the runtime. Both sides change it
/// together.
const CONTRACT_VERSION: u32 = 2;

/// What of the generated code the user chooses.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) build_client: bool,
    pub(crate) build_server: bool,
    pub(crate) default_stubs: bool,
    pub(crate) disable_comments: Vec<Pattern>,
    pub(crate) client_attributes: Attributes,
    pub(crate) client_mod_attributes: Attributes,
    pub(crate) server_attributes: Attributes,
    pub(crate) server_mod_attributes: Attributes,
    pub(crate) trait_attributes: Attributes,
    /// Proto paths, with a leading dot, whose Rust types are not generated here.
    pub(crate) extern_paths: Vec<String>,
}

/// Attributes for some services, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<(Pattern, TokenStream)>);

impl Attributes {
    /// Parses attributes that are given with a pattern each.
    pub(crate) fn parse(attributes: &[(String, String)]) -> Result<Self, Error> {
        attributes
            .iter()
            .map(|(pattern, attribute)| Ok((Pattern::new(pattern), parse_attribute(attribute)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The attributes of an item that is chosen by any of these names.
    fn of(&self, names: &[&str]) -> TokenStream {
        self.0
            .iter()
            .filter(|(pattern, _)| names.iter().any(|name| pattern.matches(name)))
            .map(|(_, attribute)| attribute.clone())
            .collect()
    }
}

/// Reads an attribute that becomes part of the generated code.
pub(crate) fn parse_attribute(attribute: &str) -> Result<TokenStream, Error> {
    TokenStream::from_str(attribute).map_err(|error| {
        Error::setting(format!("the attribute `{attribute}` is not Rust: {error}"))
    })
}

/// Writes the services of a compilation beside their messages.
pub(crate) struct Generator {
    services: Services,
    /// The packages beside whose code there are their descriptors.
    with_descriptors: BTreeSet<String>,
    settings: Settings,
}

impl Generator {
    pub(crate) fn new(
        services: Services,
        with_descriptors: BTreeSet<String>,
        settings: Settings,
    ) -> Self {
        Self {
            services,
            with_descriptors,
            settings,
        }
    }

    /// Joins what we know of a service with what prost knows, its documentation and Rust types.
    fn join(&self, service: &prost_build::Service) -> Option<Service> {
        let full_name = full_name(&service.package, &service.proto_name);
        let model = self.services.get(&full_name)?;
        let names = &model.names;
        let attribute_names = [full_name.as_str()];
        let mod_attribute_names = [full_name.as_str(), service.package.as_str()];
        Some(Service {
            documentation: self.documentation(&full_name, &service.comments),
            client_module: ident(&names.client_module),
            client: ident(&names.client),
            server_module: ident(&names.server_module),
            server: ident(&names.server),
            handlers: ident(&names.handlers),
            client_attributes: self.settings.client_attributes.of(&attribute_names),
            client_mod_attributes: self.settings.client_mod_attributes.of(&mod_attribute_names),
            server_attributes: self.settings.server_attributes.of(&attribute_names),
            server_mod_attributes: self.settings.server_mod_attributes.of(&mod_attribute_names),
            trait_attributes: self.settings.trait_attributes.of(&attribute_names),
            methods: model
                .methods
                .iter()
                .zip(&service.methods)
                .map(|(model, method)| self.join_method(model, method))
                .collect(),
            full_name,
        })
    }

    fn join_method(&self, model: &model::Method, method: &prost_build::Method) -> Method {
        Method {
            name: ident(&model.name.rust),
            renamed: renamed(&model.name),
            full_name: model.full_name.clone(),
            documentation: self.documentation(&model.full_name, &method.comments),
            deprecated: method.options.deprecated(),
            is_idempotent: method.options.idempotency_level()
                != IdempotencyLevel::IdempotencyUnknown,
            call_type: model.call_type,
            request: self.rust_type(&method.input_type, &method.input_proto_type),
            response: self.rust_type(&method.output_type, &method.output_proto_type),
        }
    }

    /// The comments of an item as doc attributes, or nothing.
    fn documentation(&self, full_name: &str, comments: &Comments) -> TokenStream {
        let disabled = &self.settings.disable_comments;
        if disabled.iter().any(|pattern| pattern.matches(full_name)) {
            return TokenStream::new();
        }
        let attached = Comments {
            // Comments that belong to no item are none of its documentation.
            leading_detached: Vec::new(),
            ..comments.clone()
        };
        let mut text = String::new();
        attached.append_with_indent(0, &mut text);
        text.lines()
            .filter_map(|line| line.strip_prefix("///"))
            .map(|line| quote!(#[doc = #line]))
            .collect()
    }

    /// A type as it is written in a module inside of the package's own.
    fn rust_type(&self, in_package: &str, proto_path: &str) -> TokenStream {
        let is_extern = |path: &String| starts_with_parts(proto_path, path);
        let is_absolute = in_package.starts_with("::")
            || in_package.starts_with("crate::")
            || self.settings.extern_paths.iter().any(is_extern);
        let path = if is_absolute {
            in_package.to_owned()
        } else {
            format!("super::{in_package}")
        };
        // An extern path of `prost_build::Config` may be anything. What is no path is found when the
        // code is read again.
        TokenStream::from_str(&path).unwrap_or_else(|_| Literal::string(&path).into_token_stream())
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: prost_build::Service, buf: &mut String) {
        let Some(service) = self.join(&service) else {
            return;
        };
        if self.settings.build_client {
            buf.push_str(&client::module(&service).to_string());
        }
        if self.settings.build_server {
            let default_stubs = self.settings.default_stubs;
            buf.push_str(&server::module(&service, default_stubs).to_string());
        }
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        if self.with_descriptors.contains(package) {
            let name = ident(reflection::CONSTANT);
            let file = descriptors_file(&Module::from_protobuf_package_name(package));
            let constant = quote! {
                /// The encoded descriptors of this package and of all that it imports, for reflection.
                pub const #name: &[u8] = include_bytes!(#file);
            };
            buf.push_str(&constant.to_string());
        }
        if self.settings.build_client || self.settings.build_server {
            let version = Literal::u32_unsuffixed(CONTRACT_VERSION);
            let assertion = quote! {
                const _: () = ::gorums::codegen::assert_version(#version);
            };
            buf.push_str(&assertion.to_string());
        }
    }
}

/// All that the code of a service depends on.
struct Service {
    full_name: String,
    /// From the proto file, or empty.
    documentation: TokenStream,
    client_module: Ident,
    client: Ident,
    server_module: Ident,
    server: Ident,
    handlers: Ident,
    client_attributes: TokenStream,
    client_mod_attributes: TokenStream,
    server_attributes: TokenStream,
    server_mod_attributes: TokenStream,
    trait_attributes: TokenStream,
    methods: Vec<Method>,
}

/// All that the code of a method depends on.
struct Method {
    name: Ident,
    /// A sentence on the change of its name.
    renamed: Option<String>,
    full_name: String,
    /// From the proto file, or empty.
    documentation: TokenStream,
    deprecated: bool,
    /// It may be handled twice, whether it has side effects or not.
    is_idempotent: bool,
    call_type: CallType,
    request: TokenStream,
    response: TokenStream,
}

impl Service {
    /// What the proto file says, or else a sentence that is true of every service.
    fn documentation_or(&self, sentence: &str) -> TokenStream {
        documentation_or(&self.documentation, sentence)
    }
}

impl Method {
    /// What the proto file says, or else a sentence that is true of every method of its call type.
    fn documentation_or(&self, sentence: &str) -> TokenStream {
        let mut documentation = documentation_or(&self.documentation, sentence);
        if let Some(note) = &self.renamed {
            let note = format!(" {note}");
            documentation.extend(quote!(#[doc = ""] #[doc = #note]));
        }
        documentation
    }
}

fn documentation_or(documentation: &TokenStream, sentence: &str) -> TokenStream {
    if documentation.is_empty() {
        let sentence = format!(" {sentence}");
        quote!(#[doc = #sentence])
    } else {
        documentation.clone()
    }
}

/// The sentence about a method that could not keep its name.
fn renamed(name: &MethodName) -> Option<String> {
    let wanted = name.renamed_from.as_ref()?;
    Some(format!(
        "Named `{}` because the client keeps the name `{wanted}` for itself.",
        name.rust
    ))
}

fn ident(name: &str) -> Ident {
    match name.strip_prefix("r#") {
        Some(keyword) => Ident::new_raw(keyword, Span::call_site()),
        None => Ident::new(name, Span::call_site()),
    }
}
