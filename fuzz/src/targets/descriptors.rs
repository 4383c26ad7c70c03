use gorums_build::plugin::respond;
use prost::Message;
use prost_types::compiler::CodeGeneratorResponse;

#[derive(Clone, PartialEq, Message)]
struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    parameter: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// The parameters that are worth a look.
const PARAMETERS: [&str; 4] = [
    "",
    "build_client=false,include_file=mod.rs",
    "build_server=false,compile_well_known_types",
    "generate_default_stubs,bytes=.,btree_map=.",
];

/// A set of descriptors, or what protoc sends a plugin: there is code, or an error that says what is
/// wrong.
pub(super) fn check(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let parameter = PARAMETERS[usize::from(first >> 1) % PARAMETERS.len()];
    let request = match (first & 1, Set::decode(bytes)) {
        (0, Ok(set)) => {
            let names = set.file.iter().filter_map(|file| {
                let named = Named::decode(&file[..]).ok()?;
                Some(named.name)
            });
            let request = Request {
                file_to_generate: names.collect(),
                parameter: Some(parameter.to_owned()),
                proto_file: set.file,
            };
            request.encode_to_vec()
        }
        _ => bytes.to_owned(),
    };
    let response = respond(&request);
    let answer = CodeGeneratorResponse::decode(&response.encoded[..]);
    let answer = answer.expect("protoc can read it");
    match answer.error {
        Some(error) => {
            assert!(!error.trim().is_empty(), "an error without words");
            assert!(answer.file.is_empty(), "{error}");
        }
        None => {
            for file in answer.file {
                let (name, content) = (file.name(), file.content());
                assert!(!name.is_empty() && !content.is_empty(), "{name:?}");
            }
        }
    }
}
