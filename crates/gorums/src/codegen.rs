//! What generated code calls. Not for other use: it changes with the generator.

/// Fails to compile where the generated code and this library do not fit together.
///
/// # Panics
/// At compile time, with what to do.
pub const fn assert_version(generated: u32) {
    assert!(
        generated == VERSION,
        "this code was generated for another version of gorums: \
         use the same version of gorums and gorums-build, and build again"
    );
}

/// Changes whenever generated code of the one before would not compile or would not work.
const VERSION: u32 = 1;
