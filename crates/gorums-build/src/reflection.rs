//! The descriptors of each package that has servers, which servers tell by reflection.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost::encoding::{DecodeContext, decode_key, encode_key, skip_field};

use crate::descriptor::{DescriptorSet, EncodedFiles, File};
use crate::error::Error;

/// The number of `source_code_info` in a `google.protobuf.FileDescriptorProto`.
const SOURCE_CODE_INFO: u32 = 9;

/// The constant of a package that has its descriptors.
pub(crate) const CONSTANT: &str = "FILE_DESCRIPTOR_SET";

/// An encoded `google.protobuf.FileDescriptorSet` for each of these packages: its files and all that
/// they import, as the compiler has written them, without what is known of their sources.
pub(crate) fn sets_of(
    packages: BTreeSet<String>,
    files: &[File],
    descriptors: &DescriptorSet,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    if packages.is_empty() {
        return Ok(BTreeMap::new());
    }
    let encoded =
        EncodedFiles::decode(descriptors.encoded.as_slice()).map_err(Error::descriptor)?;
    let mut all = Vec::new();
    for encoded in encoded.file {
        let known = prost_types::FileDescriptorProto::decode(encoded.as_slice());
        all.push((known.map_err(Error::descriptor)?, encoded));
    }
    let of_package = |package: &str| {
        let own = files.iter().filter(|file| file.proto.package() == package);
        let mut wanted: BTreeSet<&str> = own.map(|file| file.proto.name()).collect();
        // Dependencies come first.
        for (file, _) in all.iter().rev() {
            if wanted.contains(file.name()) {
                wanted.extend(file.dependency.iter().map(String::as_str));
            }
        }
        let chosen = all.iter().filter(|(file, _)| wanted.contains(file.name()));
        let file = chosen.map(|(_, encoded)| without_source(encoded));
        let file = file.collect::<Result<_, _>>()?;
        Ok(EncodedFiles { file }.encode_to_vec())
    };
    packages
        .into_iter()
        .map(|package| of_package(&package).map(|set| (package, set)))
        .collect()
}

/// An encoded file without comments and positions, which are most of it.
fn without_source(mut encoded: &[u8]) -> Result<Vec<u8>, Error> {
    let mut rest = Vec::new();
    while !encoded.is_empty() {
        let (number, wire_type) = decode_key(&mut encoded).map_err(Error::descriptor)?;
        let value = encoded;
        skip_field(wire_type, number, &mut encoded, DecodeContext::default())
            .map_err(Error::descriptor)?;
        if number != SOURCE_CODE_INFO {
            encode_key(number, wire_type, &mut rest);
            rest.extend_from_slice(&value[..value.len() - encoded.len()]);
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use prost_types::source_code_info::Location;
    use prost_types::{FileDescriptorProto, MethodOptions, SourceCodeInfo};

    use super::*;

    #[test]
    fn a_file_keeps_all_but_what_is_known_of_its_source() {
        let bare = FileDescriptorProto {
            name: Some("a.proto".to_owned()),
            dependency: vec!["b.proto".to_owned()],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        };
        let whole = FileDescriptorProto {
            source_code_info: Some(SourceCodeInfo {
                location: vec![Location::default(); 3],
            }),
            ..bare.clone()
        };
        let encoded = without_source(&whole.encode_to_vec()).expect("well-formed");
        assert_eq!(encoded, bare.encode_to_vec());
        // Of other numbers, of which prost knows nothing.
        let mut options = MethodOptions::default().encode_to_vec();
        prost::encoding::bool::encode(50004, &true, &mut options);
        assert_eq!(without_source(&options).expect("well-formed"), options);
        assert!(without_source(&[0xff]).is_err());
    }
}
