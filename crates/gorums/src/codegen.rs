//! What generated code calls. Not for other use: it changes with the generator.

use std::fmt;
use std::sync::Arc;

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
const VERSION: u32 = 2;

/// What a client adds to every call of one method, before the caller does: a function of the call's
/// builder, or nothing.
pub struct MethodDefaults<B>(Option<Arc<dyn Fn(B) -> B + Send + Sync>>);

impl<B> MethodDefaults<B> {
    /// Sets the function, in place of the one before.
    pub fn set(&mut self, f: impl Fn(B) -> B + Send + Sync + 'static) {
        self.0 = Some(Arc::new(f));
    }

    /// The call with its defaults.
    pub fn apply(&self, call: B) -> B {
        match &self.0 {
            None => call,
            Some(f) => f(call),
        }
    }
}

impl<B> Default for MethodDefaults<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B> Clone for MethodDefaults<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for MethodDefaults<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}
