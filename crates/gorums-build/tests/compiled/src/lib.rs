//! What `gorums-build` generates from its fixtures, compiled under the lints of this workspace.

/// Several packages, nested ones and imports among them.
pub mod all {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

/// A file without a package, on well-known types, with default stubs.
pub mod clock {
    gorums::include_proto!("_");
}
