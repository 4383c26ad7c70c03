//! Which handler runs on this thread, so that a call that waits for the handler's own turn is
//! refused.

use std::cell::RefCell;

use super::context::ServerCtx;
use crate::error::Status;
use crate::runtime::InProcess;

thread_local! {
    static HANDLING: RefCell<Option<Handling>> = const { RefCell::new(None) };
}

/// A handler that is being polled, of a server that is a node of its own peers.
#[derive(Clone)]
pub(crate) struct Handling {
    pub(crate) ctx: ServerCtx,
    /// Leads to the handler's server.
    pub(crate) in_process: InProcess,
}

impl Handling {
    /// Does something, such as polling the handler, that is to be known as the handler's doing.
    pub(crate) fn during<T>(self, act: impl FnOnce() -> T) -> T {
        /// Also where a handler panics.
        struct Restore(Option<Handling>);

        impl Drop for Restore {
            fn drop(&mut self) {
                let outer = self.0.take();
                // The thread's locals may be gone before its tasks are.
                let _ = HANDLING.try_with(|handling| handling.replace(outer));
            }
        }

        let outer = HANDLING.with(|handling| handling.replace(Some(self)));
        let _restore = Restore(outer);
        act()
    }
}

/// Why a two-way call to a node must not be made here, if so: it would wait for the turn that the
/// handler making it holds. `way` tells how this process reaches the node within itself, if it
/// does.
pub(crate) fn refusal(way: impl FnOnce() -> Option<InProcess>) -> Option<Status> {
    HANDLING.with_borrow(|handling| {
        let Handling { ctx, in_process } = handling.as_ref()?;
        if !ctx.blocks_own_node() || !way()?.leads_where(in_process) {
            return None;
        }
        Some(Status::failed_precondition(
            "call ctx.release() first: this handler holds the turn that a call to its own node waits \
             for",
        ))
    })
}
