//! Server reflection, `grpc.reflection.v1` and `v1alpha`: what is served, for clients that have no
//! `.proto` files.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;

use super::builder::{ServerBuilder, ServerError};
use super::fallback::TowerService;
use super::health;
use super::mounted::Mounts;
use crate::handler::Registry;

const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// How many bytes a request may have: a name, most often.
const LONGEST_REQUEST: usize = 64 * 1024;

/// What reflection was given to tell.
#[derive(Default)]
pub(super) struct Reflection {
    /// Encoded descriptors. Without any there is no reflection.
    sets: Vec<Bytes>,
    /// Services of the fallback.
    mounted: BTreeSet<String>,
}

impl ServerBuilder {
    /// Tells by server reflection what the server serves, `grpc.reflection.v1` and `v1alpha`: so tools
    /// like grpcurl list its services and call them without any `.proto` file. It tells of the services
    /// of Gorums that were added, of [health](Self::health) and of itself.
    ///
    /// It takes an encoded `google.protobuf.FileDescriptorSet` with all imports. Generated code has it
    /// as a constant, so this is one line; call it once for each package:
    ///
    /// ```text
    /// mod storage {
    ///     gorums::include_proto!("storage");
    /// }
    ///
    /// Server::builder()
    ///     .add_service(StorageServer::new(replica))
    ///     .reflection(storage::FILE_DESCRIPTOR_SET)
    ///     .serve("0.0.0.0:8080")
    /// ```
    ///
    /// [`bind`](Self::bind) is an error where a set cannot be read, where it lacks an import, or where
    /// none has a method that is served. Everybody who may connect is told:
    /// [`on_connect`](Self::on_connect) is asked, and interceptors are not. Requests are bounded as those
    /// of a [`fallback`](Self::fallback) are, and have 64 KiB at most.
    #[cfg_attr(docsrs, doc(cfg(feature = "reflection")))]
    pub fn reflection(mut self, file_descriptor_set: impl Into<Bytes>) -> Self {
        self.reflection.sets.push(file_descriptor_set.into());
        self
    }

    /// Names services of the [`fallback`](Self::fallback), as those of tonic are in `NamedService::NAME`:
    /// [`reflection`](Self::reflection) lists them, too, which is to be given their descriptors.
    #[cfg_attr(docsrs, doc(cfg(feature = "reflection")))]
    pub fn fallback_services(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names = names.into_iter().map(Into::into);
        self.reflection.mounted.extend(names);
        self
    }
}

impl Reflection {
    /// Has these methods told of where anybody asks for it.
    ///
    /// # Errors
    /// The descriptors are not those of what is served.
    pub(super) fn mount(self, registry: &Registry, mounts: &mut Mounts) -> Result<(), ServerError> {
        if self.sets.is_empty() {
            return Ok(());
        }
        let mut sets = self.sets;
        let mut known = Known::read(&sets)?;
        let services: BTreeSet<_> = registry.services().map(str::to_owned).collect();
        if services.contains(health::NAME) && !known.services.contains_key(health::NAME) {
            let file = health_file();
            known.add(&file);
            let set = FileDescriptorSet { file: vec![file] };
            sets.push(set.encode_to_vec().into());
        }
        known.check(registry.methods(), &self.mounted)?;
        sets.push(Bytes::from_static(v1::FILE_DESCRIPTOR_SET));
        sets.push(Bytes::from_static(v1alpha::FILE_DESCRIPTOR_SET));

        let builder = || {
            let mut builder = Builder::configure().include_reflection_service(false);
            for set in &sets {
                builder = builder.register_encoded_file_descriptor_set(set);
            }
            let own = [V1, V1ALPHA].map(str::to_owned);
            let names: BTreeSet<_> = services.iter().chain(&self.mounted).chain(&own).collect();
            for name in names {
                builder = builder.with_service_name(name);
            }
            builder
        };
        let unreadable = |error: tonic_reflection::server::Error| ServerError::BadDescriptors {
            problem: error.to_string(),
        };
        let service = builder().build_v1().map_err(unreadable)?;
        let service = service.max_decoding_message_size(LONGEST_REQUEST);
        mounts.add(V1, TowerService::until_shutdown(service));
        let service = builder().build_v1alpha().map_err(unreadable)?;
        let service = service.max_decoding_message_size(LONGEST_REQUEST);
        mounts.add(V1ALPHA, TowerService::until_shutdown(service));
        Ok(())
    }
}

/// What the descriptors know.
#[derive(Default)]
struct Known {
    /// The methods of each service.
    services: BTreeMap<String, BTreeSet<String>>,
}

impl Known {
    fn read(sets: &[Bytes]) -> Result<Self, ServerError> {
        let bad = |problem| Err(ServerError::BadDescriptors { problem });
        let mut files = BTreeMap::<String, FileDescriptorProto>::new();
        for set in sets {
            let set = match FileDescriptorSet::decode(set.clone()) {
                Ok(set) if set.file.is_empty() => return bad("a set has no file".to_owned()),
                Ok(set) => set,
                Err(error) => return bad(error.to_string()),
            };
            for mut file in set.file {
                // Of a file that is in two sets, one may have its comments.
                file.source_code_info = None;
                let name = file.name().to_owned();
                if name.is_empty() {
                    return bad("a file has no name".to_owned());
                }
                match files.get(&name) {
                    Some(other) if *other != file => {
                        return bad(format!(
                            "two files are called {name:?} and are not the same; one of them needs \
                             another name, or another folder below its include folder"
                        ));
                    }
                    _ => files.insert(name, file),
                };
            }
        }
        let mut known = Self::default();
        for file in files.values() {
            let missing = file
                .dependency
                .iter()
                .find(|name| !files.contains_key(*name));
            if let Some(missing) = missing {
                let name = file.name();
                return bad(format!("{name:?} imports {missing:?}, which is in no set"));
            }
            known.add(file);
        }
        Ok(known)
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        for service in &file.service {
            let name = match file.package() {
                "" => service.name().to_owned(),
                package => format!("{package}.{}", service.name()),
            };
            let methods = service.method.iter();
            let methods = methods.map(|method| method.name().to_owned());
            self.services.entry(name).or_default().extend(methods);
        }
    }

    /// Whether there is all that is to be told of.
    fn check<'a>(
        &self,
        methods: impl Iterator<Item = &'a str>,
        mounted: &'a BTreeSet<String>,
    ) -> Result<(), ServerError> {
        let is_known = |method: &str| {
            let (service, method) = method.rsplit_once('.').unwrap_or(("", method));
            let methods = self.services.get(service);
            methods.is_some_and(|methods| methods.contains(method))
        };
        let methods = methods.filter(|method| !is_known(method));
        let services = mounted.iter().map(String::as_str);
        let services = services.filter(|service| !self.services.contains_key(*service));
        let mut missing: Vec<_> = methods.chain(services).map(str::to_owned).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort();
        Err(ServerError::MissingDescriptors { missing })
    }
}

/// The descriptor of the health service, as far as it is served.
fn health_file() -> FileDescriptorProto {
    let field = |name: &str, kind: Type, type_name: Option<&str>| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        type_name: type_name.map(str::to_owned),
        json_name: Some(name.to_owned()),
        ..FieldDescriptorProto::default()
    };
    let status = EnumDescriptorProto {
        name: Some("ServingStatus".to_owned()),
        value: ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
            .into_iter()
            .zip(0..)
            .map(|(name, number)| EnumValueDescriptorProto {
                name: Some(name.to_owned()),
                number: Some(number),
                ..EnumValueDescriptorProto::default()
            })
            .collect(),
        ..EnumDescriptorProto::default()
    };
    let request = DescriptorProto {
        name: Some("HealthCheckRequest".to_owned()),
        field: vec![field("service", Type::String, None)],
        ..DescriptorProto::default()
    };
    let of_status = ".grpc.health.v1.HealthCheckResponse.ServingStatus";
    let response = DescriptorProto {
        name: Some("HealthCheckResponse".to_owned()),
        field: vec![field("status", Type::Enum, Some(of_status))],
        enum_type: vec![status],
        ..DescriptorProto::default()
    };
    let method = |name: &str, is_streamed| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".grpc.health.v1.HealthCheckRequest".to_owned()),
        output_type: Some(".grpc.health.v1.HealthCheckResponse".to_owned()),
        server_streaming: Some(is_streamed),
        ..MethodDescriptorProto::default()
    };
    FileDescriptorProto {
        name: Some("grpc/health/v1/health.proto".to_owned()),
        package: Some("grpc.health.v1".to_owned()),
        message_type: vec![request, response],
        service: vec![ServiceDescriptorProto {
            name: Some("Health".to_owned()),
            method: vec![method("Check", false), method("Watch", true)],
            ..ServiceDescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}
