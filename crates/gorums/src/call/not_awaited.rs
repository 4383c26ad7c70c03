//! What the compiler says where something is awaited that has no result of its own.
//!
//! Without these it advises to remove the `.await`, which leaves a call that is never made. The
//! bounds are never met, so nothing here ever runs.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::correctable::Correctable;
use super::quorum_call::QuorumCall;
use super::responses::{Filter, Responses, Successes, Take};

/// What the bounds are on. On the awaited types themselves they would have the compiler tell its
/// own message.
pub struct NotAwaited<T>(PhantomData<T>);

/// A trait that nothing implements, its message, and the types that are told it.
macro_rules! not_awaited {
    ($(
        $chosen:ident: $message:literal, $label:literal, $note:literal
        for $($name:ident<$($parameter:ident),*>),+;
    )*) => {
        $(
            #[diagnostic::on_unimplemented(message = $message, label = $label, note = $note)]
            pub trait $chosen {
                type Output;

                fn never() -> Self::Output;
            }

            $(
                #[doc(hidden)]
                impl<$($parameter),*> Future for $name<$($parameter),*>
                where
                    NotAwaited<($($parameter,)*)>: $chosen,
                {
                    type Output = <NotAwaited<($($parameter,)*)> as $chosen>::Output;

                    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
                        Poll::Ready(<NotAwaited<($($parameter,)*)> as $chosen>::never())
                    }
                }
            )+
        )*
    };
}

not_awaited! {
    Terminal:
        "choose what is made of the replies: `majority()`, `all()`, `threshold(k)`, \
         `quorum(system)`, `quorum_fn(f)`, `responses()`, …",
        "a quorum call has no result of its own: its terminal is missing",
        "it is the terminal that queues the call: without one nothing is sent, also where the \
         `.await` is removed"
        for QuorumCall<Req, Resp>;
    WhichAnswer:
        "choose the answer that is waited for: `reached(level)`, `changed()` for the next one, or \
         `done()` for the last",
        "a correctable has many answers",
        "to drop the correctable gives the call up"
        for Correctable<T>;
    NextOrAll:
        "take the replies one by one with `next()`, or all of them with `by_node()`",
        "this is a stream",
        "to drop the stream gives the call up"
        for Responses<Resp>, Successes<Resp>, Filter<S, F>, Take<S>;
}
