//! Code generator of [Gorums](https://github.com/gorums/gorums-rs): from `.proto` services to typed
//! quorum calls and ordered servers.
//!
//! It runs in a build script, needs no installed `protoc`, and is used like `tonic-prost-build`.
//!
//! # Example
//!
//! The service, in `proto/storage.proto`. `gorums.proto` comes with this crate:
//!
//! ```proto
//! syntax = "proto3";
//! package storage;
//! import "gorums.proto";
//!
//! service Storage {
//!   // A method without an option is an RPC to one node.
//!   rpc Status(StatusRequest) returns (StatusResponse);
//!   rpc Read(ReadRequest) returns (ReadResponse) {
//!     option (gorums.quorumcall) = true;
//!   }
//! }
//! // … and the messages
//! ```
//!
//! `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     gorums_build::compile_protos("proto/storage.proto")?;
//!     Ok(())
//! }
//! ```
//!
//! `Cargo.toml`; `prost-types` only if the messages use well-known types like
//! `google.protobuf.Timestamp`. Nothing is published on crates.io yet, so the crates come from a
//! clone of the repository, or from Git (`gorums = { git = "…" }`):
//!
//! ```toml
//! [dependencies]
//! gorums = { path = "../gorums-rs/crates/gorums" }
//! prost = "0.14"
//! prost-types = "0.14"
//!
//! [build-dependencies]
//! gorums-build = { path = "../gorums-rs/crates/gorums-build" }
//! ```
//!
//! And the program:
//!
//! ```text
//! mod storage {
//!     gorums::include_proto!("storage");
//! }
//! use storage::storage_client::StorageClient;
//! use storage::storage_server::{Storage, StorageServer};
//! ```
//!
//! # Call types
//!
//! | method option | the client calls | replies | the handler |
//! |---|---|---|---|
//! | none, or `(gorums.rpc) = true` | one node | one | returns `Result<Response, Status>` |
//! | `(gorums.unicast) = true` | one node | none | returns nothing |
//! | `(gorums.multicast) = true` | all nodes of a configuration | none | returns nothing |
//! | `(gorums.quorumcall) = true` | all nodes of a configuration | one from each | returns `Result<Response, Status>` |
//! | the same, with `returns (stream Response)` | all nodes of a configuration | any number from each | sends replies, returns `Result<(), Status>` |
//!
//! One-way methods ignore their response type, which is usually `google.protobuf.Empty`. Options
//! are read by their number, so they may also come from a copy of `gorums.proto`.
//!
//! The standard option `idempotency_level` says that a node may handle a request twice, by either of
//! `NO_SIDE_EFFECTS` and `IDEMPOTENT`. Calls of such a method, one-way ones excepted, are sent again
//! where the stream breaks before they are answered; others then have an unknown outcome.
//!
//! # Which files it takes
//!
//! Files of proto2, proto3 and the editions 2023 and 2024. Of an edition's features it takes field
//! presence of all three kinds, open enums, packed and expanded repeated fields, and length-prefixed
//! and delimited messages; features and options of other languages and programs are passed over.
//! What the generated code cannot keep, closed enums in a file of an edition and text that is not
//! checked to be UTF-8, is refused by the name of the feature. Descriptors of `protoc` are taken in
//! the same way, by [`Builder::compile_fds`] and by the [`plugin`] for `protoc` and `buf`.
//!
//! The messages of a file are always generated. A service that has a `stream` and no option of
//! Gorums on any of its methods is one of gRPC: it is left to others (the same file is often given
//! to tonic as well), with a warning. [`Builder::services`] and [`Builder::skip_services`] choose.
//!
//! Other programs that read the same files, like tonic-prost-build or grpcio-tools, find
//! `gorums.proto` in the folder that [`proto_include`] names.
//!
//! # Names
//!
//! A service `Storage` becomes `storage_client::StorageClient` and
//! `storage_server::{Storage, StorageServer}`; a method `ReadQC` becomes `read_qc`. Methods called
//! `New`, `Configuration`, `On`, `Clone`, `CloneFrom` or `With…` get an underscore at the end
//! (`new_`), in client and server, because the client has methods of those names. The names in
//! messages between nodes stay as they are in the `.proto` file.
//!
//! `include_proto!` takes a package as its file writes it (`a.async.Type`), and also as its Rust
//! modules are called (`a.r#async.r#type`). Names that would be one name in Rust, like those of
//! messages `FooBar` and `foo_bar`, are a mistake.
//!
//! A package with servers also has a constant `FILE_DESCRIPTOR_SET`, its encoded descriptors with those
//! of all imports, so that a server tells what it serves by reflection, in one line:
//! `.reflection(storage::FILE_DESCRIPTOR_SET)`. They are in a file beside the code, `storage.binpb`, and
//! only in programs that use them; [`Builder::file_descriptor_sets`] leaves them out. The [`plugin`] writes
//! none: `protoc --include_imports --descriptor_set_out=FILE` and `buf build -o FILE` do.
//!
//! Comments become documentation. Code blocks in them are marked as text where rustdoc would run
//! them, and characters that change the direction of writing are left out.
//!
//! # Mistakes
//!
//! All mistakes in all files are reported together, each with its place and what mends it:
//!
//! ```text
//! Error: 1 mistake in the .proto files
//!
//! proto/storage.proto:9:5: service `storage.Storage`, method `Read`: the options `multicast` and `quorumcall` are set together, but a method has one call type
//!     help: keep one of them
//! ```

mod aliases;
mod builder;
mod codegen;
mod comments;
mod descriptor;
mod editions;
mod elements;
mod error;
mod front_end;
mod model;
mod naming;
mod output;
mod patterns;
pub mod plugin;
mod recursion;
mod reflection;
mod rust_names;
mod scopes;
mod source;

use std::path::Path;

pub use builder::{Builder, compile_protos, configure};
pub use error::{Diagnostic, Error};
// Part of the interface of `Builder::compile_protos_with_config`.
pub use prost_build;

/// The folder that has this crate's `gorums.proto`.
///
/// [`Builder::compile_protos`] finds the file without it. Other compilers of the same `.proto`
/// files want the folder among their include folders, so that nobody has to keep a copy:
///
/// ```text
/// tonic_prost_build::configure().compile_protos(
///     &["proto/storage.proto"],
///     &[Path::new("proto"), gorums_build::proto_include()],
/// )?;
/// ```
///
/// The folder is that of the sources which this crate was built from, so it exists where cargo
/// builds programs, in build scripts for example, and not necessarily where they run later.
#[must_use]
pub fn proto_include() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/proto"))
}
