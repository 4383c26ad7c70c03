//! What `gorums-build` generates from its fixtures, compiled under the lints of this workspace.

/// Several packages, nested ones and imports among them.
pub mod all {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

/// A file without a package, on well-known types, with default stubs.
pub mod clock {
    gorums::include_proto!("_");
}

/// A package that is included as its file writes it, and another time as Rust does.
pub mod keywords {
    gorums::include_proto!("a.async.Type");

    /// The same code.
    pub mod again {
        gorums::include_proto!("a.r#async.r#type");
    }
}
