//! Services whose every method has exactly one call type: what the code writers work from.
//!
//! Descriptors are checked here and nowhere else. What comes out needs no further check.

use std::collections::{BTreeMap, HashMap};

use prost_types::{MethodDescriptorProto, ServiceDescriptorProto};

use crate::descriptor::{
    CallOption, File, OptionKind, OutdatedOption, RemovedOption, listed, path,
};
use crate::error::{Diagnostic, Error};
use crate::naming::{self, MethodName, ServiceNames};
use crate::patterns::Pattern;
use crate::rust_names::{RustNames, UNKNOWN_TYPE_HELP};

/// The services of a descriptor set by their full proto names.
#[derive(Debug, Default)]
pub(crate) struct Services {
    by_name: HashMap<String, Service>,
    /// Those that were left to other generators without being asked to, and why.
    pub(crate) left: Vec<Diagnostic>,
}

/// Which services of the target files are generated.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// If there is any, only services that one of them chooses.
    pub(crate) only: Vec<String>,
    pub(crate) skipped: Vec<String>,
}

/// A service that can be generated.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// With its package, as it travels in requests.
    pub(crate) full_name: String,
    pub(crate) names: ServiceNames,
    /// In the order of the file.
    pub(crate) methods: Vec<Method>,
}

/// A method that can be generated.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    pub(crate) name: MethodName,
    /// With package and service, as it travels in requests.
    pub(crate) full_name: String,
    pub(crate) call_type: CallType,
}

/// How a method is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallType {
    /// One node, one reply.
    Rpc,
    /// One node, no reply.
    Unicast,
    /// Every node of a configuration, no reply.
    Multicast,
    /// Every node of a configuration, one reply from each.
    QuorumCall,
    /// Every node of a configuration, any number of replies from each.
    StreamedQuorumCall,
}

impl Services {
    /// Checks the target files, and returns their services or every mistake in them.
    pub(crate) fn check(
        files: &[File],
        choice: &Choice,
        rust_names: &mut RustNames<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let mut services = Self::default();
        for file in files.iter().filter(|file| file.is_target) {
            for index in 0..file.proto.service.len() {
                let service = CheckedService::new(file, index);
                match service.taken(choice) {
                    Taken::Yes => {
                        if let Some(service) = service.check(rust_names, &mut mistakes) {
                            services.by_name.insert(service.full_name.clone(), service);
                        }
                    }
                    Taken::No => {}
                    Taken::LeftForIts(stream) => services.left.push(stream),
                }
            }
        }
        if mistakes.is_empty() {
            Ok(services)
        } else {
            Err(mistakes)
        }
    }

    pub(crate) fn get(&self, full_name: &str) -> Option<&Service> {
        self.by_name.get(full_name)
    }
}

impl Choice {
    /// Each pattern that asks for services has to choose one at least: else it is misspelt, and
    /// nothing would be generated in silence.
    pub(crate) fn check(&self, files: &[File]) -> Result<(), Error> {
        let mut names: Vec<String> = Vec::new();
        for file in files.iter().filter(|file| file.is_target) {
            let services = file.proto.service.iter();
            names.extend(services.map(|service| full_name(file.proto.package(), service.name())));
        }
        for pattern in &self.only {
            if !names.iter().any(|name| Pattern::new(pattern).matches(name)) {
                return Err(Error::setting(format!(
                    "`{pattern}` chooses no service of the compiled files, which have {}",
                    listed(&names)
                )));
            }
        }
        Ok(())
    }
}

/// Joins a proto package, which may be empty, and a name in it.
pub(crate) fn full_name(package: &str, name: &str) -> String {
    if package.is_empty() {
        name.to_owned()
    } else {
        format!("{package}.{name}")
    }
}

/// Whether a service is generated.
enum Taken {
    Yes,
    /// The user's choice.
    No,
    /// It is one of gRPC, as the message says.
    LeftForIts(Diagnostic),
}

/// A service while it is being checked.
struct CheckedService<'a> {
    file: &'a File,
    index: usize,
    proto: &'a ServiceDescriptorProto,
    full_name: String,
}

impl<'a> CheckedService<'a> {
    fn new(file: &'a File, index: usize) -> Self {
        let proto = &file.proto.service[index];
        Self {
            file,
            index,
            proto,
            full_name: full_name(file.proto.package(), proto.name()),
        }
    }

    /// A service with a stream and without any option of Gorums is one of gRPC, which other
    /// generators take from the same file, unless it was asked for.
    fn taken(&self, choice: &Choice) -> Taken {
        let chosen_by = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| Pattern::new(pattern).matches(&self.full_name))
        };
        if chosen_by(&choice.skipped) {
            return Taken::No;
        }
        if !choice.only.is_empty() {
            return match chosen_by(&choice.only) {
                true => Taken::Yes,
                false => Taken::No,
            };
        }
        let streaming = |method: &&MethodDescriptorProto| {
            method.client_streaming() || method.server_streaming()
        };
        match self.proto.method.iter().find(streaming) {
            Some(method) if !self.file.has_options(self.index) => Taken::LeftForIts(
                self.mistake(format!(
                    "it is left to other generators, because `{}` has a `stream` and no method an option of Gorums",
                    method.name()
                ))
                .with_help("`skip_services` leaves it without this warning"),
            ),
            _ => Taken::Yes,
        }
    }

    /// Returns the service, or `None` after adding at least one mistake.
    fn check(
        &self,
        rust_names: &mut RustNames<'_>,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Option<Service> {
        let names = self.names(rust_names, mistakes);
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        let mut methods = Vec::new();
        for (index, proto) in self.proto.method.iter().enumerate() {
            let call_type = self.call_type(index, proto, mistakes);
            let name = self.method_name(index, proto, &mut taken, mistakes);
            for message in [proto.input_type(), proto.output_type()] {
                if let Some(unknown) = rust_names.unknown_type(message) {
                    let mistake = self.method_mistake(index, &[], unknown);
                    mistakes.push(mistake.with_help(UNKNOWN_TYPE_HELP));
                }
            }
            if let (Some(call_type), Some(name)) = (call_type, name) {
                methods.push(Method {
                    name,
                    full_name: format!("{}.{}", self.full_name, proto.name()),
                    call_type,
                });
            }
        }
        if methods.len() < self.proto.method.len() {
            return None;
        }
        Some(Service {
            full_name: self.full_name.clone(),
            names: names?,
            methods,
        })
    }

    fn names(
        &self,
        rust_names: &mut RustNames<'_>,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Option<ServiceNames> {
        let Some(names) = naming::service(self.proto.name()) else {
            mistakes.push(
                self.mistake("the name has no letter or digit, so it gives no Rust name")
                    .with_help("rename the service"),
            );
            return None;
        };
        let owner = format!("service `{}`", self.full_name);
        for module in [&names.client_module, &names.server_module] {
            if let Some(other) = rust_names.add_service_module(self.file, module, &owner) {
                mistakes.push(
                    self.mistake(format!(
                        "its Rust module `{module}` is also that of {other}"
                    ))
                    .with_help("rename one of them, or move one into another package"),
                );
                return None;
            }
        }
        Some(names)
    }

    fn method_name(
        &self,
        index: usize,
        proto: &'a MethodDescriptorProto,
        taken: &mut BTreeMap<String, &'a str>,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Option<MethodName> {
        let Some(name) = naming::method(proto.name()) else {
            mistakes.push(
                self.method_mistake(
                    index,
                    &[],
                    "the name has no letter or digit, so it gives no Rust name",
                )
                .with_help("rename the method"),
            );
            return None;
        };
        if let Some(other) = taken.insert(name.rust.clone(), proto.name()) {
            mistakes.push(
                self.method_mistake(
                    index,
                    &[],
                    format!(
                        "in Rust it is called `{}`, as is the method `{other}`",
                        name.rust
                    ),
                )
                .with_help("rename one of the two"),
            );
            return None;
        }
        Some(name)
    }

    /// The call type, or `None` after adding every mistake of the method that concerns it.
    fn call_type(
        &self,
        index: usize,
        proto: &MethodDescriptorProto,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Option<CallType> {
        let before = mistakes.len();
        let options = self.file.options(self.index, index);
        for option in &options.outdated {
            mistakes.push(self.outdated_option(index, option));
        }
        for option in &options.calls {
            mistakes.extend(self.option_mistake(index, *option));
        }
        // An option set to `false` is a mistake by itself, and none more beside another.
        let call_options: Vec<OptionKind> = options
            .calls
            .iter()
            .filter(|option| option.value == Some(true))
            .map(|option| option.kind)
            .filter(|kind| !matches!(kind, OptionKind::Removed(_)))
            .collect();
        if let [first, second, more @ ..] = call_options.as_slice() {
            mistakes.push(self.two_call_types(index, *first, *second, more));
        }
        // As in Go, `stream` means nothing on a request that has no reply.
        let one_way = matches!(
            call_options.as_slice(),
            [OptionKind::Unicast | OptionKind::Multicast]
        );
        if proto.client_streaming() && !one_way {
            mistakes.push(
                self.method_mistake(
                    index,
                    &[path::CLIENT_STREAMING],
                    "a request cannot be a `stream`",
                )
                .with_help(
                    "remove `stream` from the request and make one call for each message: calls keep their order",
                ),
            );
        }
        if proto.server_streaming() && !call_options.contains(&OptionKind::QuorumCall) {
            mistakes.push(self.stream_without_quorum_call(index, call_options.first().copied()));
        }
        if mistakes.len() > before {
            return None;
        }
        Some(match call_options.first() {
            None | Some(OptionKind::Rpc | OptionKind::Removed(_)) => CallType::Rpc,
            Some(OptionKind::Unicast) => CallType::Unicast,
            Some(OptionKind::Multicast) => CallType::Multicast,
            Some(OptionKind::QuorumCall) if proto.server_streaming() => {
                CallType::StreamedQuorumCall
            }
            Some(OptionKind::QuorumCall) => CallType::QuorumCall,
        })
    }

    /// What is wrong with one option by itself.
    fn option_mistake(&self, method: usize, option: CallOption) -> Option<Diagnostic> {
        let at = [path::OPTIONS, option.kind.number()];
        let name = option.kind.name();
        if let OptionKind::Removed(removed) = option.kind {
            let message = format!(
                "the option `{name}` ({}) no longer exists",
                option.kind.number()
            );
            let mistake = self.method_mistake(method, &at, message);
            return Some(mistake.with_help(replacement(removed)));
        }
        match option.value {
            Some(true) => None,
            Some(false) => Some(
                self.method_mistake(
                    method,
                    &at,
                    format!("the option `{name}` is set to `false`, which means nothing"),
                )
                .with_help(format!(
                    "write `= true`, or remove the option: a method without `{name}` does not need to say so"
                )),
            ),
            None => Some(
                self.method_mistake(
                    method,
                    &at,
                    format!(
                        "the method option {} is not a bool, but that number is `{name}` of gorums.proto",
                        option.kind.number()
                    ),
                )
                .with_help("give your own extension another number"),
            ),
        }
    }

    /// An option of a `gorums.proto` whose numbers are not ours.
    fn outdated_option(&self, method: usize, option: &OutdatedOption) -> Diagnostic {
        let OutdatedOption { name, number } = option;
        let (message, help) = match OptionKind::from_name(name) {
            Some(kind) => (
                format!(
                    "the option `{name}` has the number {number} in this gorums.proto, but it is {}",
                    kind.number()
                ),
                "the file is of another version: remove it from the include folders, since gorums-build brings its own".to_owned(),
            ),
            None => (
                format!("there is no option `{name}` ({number}) of Gorums"),
                match replacement_of_old(name) {
                    Some(help) => help.to_owned(),
                    None => "the options are `rpc`, `unicast`, `multicast` and `quorumcall`".to_owned(),
                },
            ),
        };
        self.method_mistake(method, &[path::OPTIONS, *number], message)
            .with_help(help)
    }

    fn two_call_types(
        &self,
        method: usize,
        first: OptionKind,
        second: OptionKind,
        more: &[OptionKind],
    ) -> Diagnostic {
        let mut names = format!("`{}` and `{}`", first.name(), second.name());
        for kind in more {
            names = format!("{names} and `{}`", kind.name());
        }
        self.method_mistake(
            method,
            &[path::OPTIONS, second.number()],
            format!("the options {names} are set together, but a method has one call type"),
        )
        .with_help("keep one of them")
    }

    fn stream_without_quorum_call(&self, method: usize, call: Option<OptionKind>) -> Diagnostic {
        let (call, help) = match call {
            Some(kind @ (OptionKind::Unicast | OptionKind::Multicast)) => (
                format!("a {}, which has no reply", kind.name()),
                format!("write `quorumcall` in the place of `{}`", kind.name()),
            ),
            Some(OptionKind::Rpc) => (
                "an RPC, which has one".to_owned(),
                "write `quorumcall` in the place of `rpc`".to_owned(),
            ),
            _ => (
                "an RPC, which has one".to_owned(),
                "add `option (gorums.quorumcall) = true;`".to_owned(),
            ),
        };
        self.method_mistake(
            method,
            &[path::SERVER_STREAMING],
            format!("a `stream` of replies needs a quorum call, and this is {call}"),
        )
        .with_help(format!("{help}, or remove `stream` from the reply"))
    }

    fn mistake(&self, message: impl Into<String>) -> Diagnostic {
        let position = self
            .file
            .position(&[path::SERVICE, path::index(self.index), path::NAME]);
        Diagnostic::new(Some(position), message).in_service(&self.full_name)
    }

    fn method_mistake(
        &self,
        method: usize,
        within: &[i32],
        message: impl Into<String>,
    ) -> Diagnostic {
        let mut place = vec![
            path::SERVICE,
            path::index(self.index),
            path::METHOD,
            path::index(method),
        ];
        place.extend_from_slice(within);
        Diagnostic::new(Some(self.file.position(&place)), message)
            .in_service(&self.full_name)
            .in_method(self.proto.method[method].name())
    }
}

/// What to write in place of an option that no longer exists.
fn replacement(option: RemovedOption) -> &'static str {
    match option {
        RemovedOption::Correctable => {
            "write `option (gorums.quorumcall) = true;`, with `returns (stream …)` if replicas send several replies, and call `.correctable(level)` on the call in Rust"
        }
        RemovedOption::Async => "remove it: every call is sent at once and can be awaited later",
        RemovedOption::PerNodeArg => {
            "remove it, and call `.map_request(|node, request| …)` on the call in Rust"
        }
        RemovedOption::CustomReturnType => {
            "remove it, and call `.quorum_fn(|request, replies| …)`, which may return any type, on the call in Rust"
        }
    }
}

/// What to write in place of an option that only old versions of `gorums.proto` declare.
fn replacement_of_old(name: &str) -> Option<&'static str> {
    Some(match name {
        "qc" | "qf_with_req" => "write `option (gorums.quorumcall) = true;`",
        "qc_future" | "quorumcall_future" | "ordered" | "strict_ordering" => {
            "write `option (gorums.quorumcall) = true;`: calls keep their order, are sent at once and can be awaited later"
        }
        "correctable_stream" | "correctable_pr" => replacement(RemovedOption::Correctable),
        "concurrent" | "async_handler" => {
            "remove it: a handler that is to run beside others calls `ctx.release()`"
        }
        "broadcast" => "write `option (gorums.multicast) = true;`",
        _ => return None,
    })
}
