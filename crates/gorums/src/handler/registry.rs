use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use fnv::FnvHasher;
use prost::Message;

use super::context::ServerCtx;
use super::handler_future::Handler;
use super::interceptor::{Incoming, Reply};
use super::reply_sender::ReplySender;
use super::shedding::{Needed, Priority};
use crate::error::Status;
use crate::wire::MethodKind;

/// A set of methods with their handlers: what a generated `…Server` is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no service: wrap the handlers in the type that was generated for them, \
               as in `LockServer::new(handlers)`",
    label = "these may be the handlers of a service",
    note = "for a service `Lock` of a `.proto` file, `gorums-build` generates the trait \
            `lock_server::Lock`, which the handlers implement, and the type \
            `lock_server::LockServer`, which is passed here"
)]
pub trait Service {
    /// The full name, `package.Service`.
    fn name(&self) -> &'static str;

    /// Registers the handler of each method.
    fn register(self, registry: &mut Registry);
}

/// The handlers of a server, by method name.
#[derive(Default)]
pub struct Registry {
    /// Peers look names up and add none, so the hash need not withstand them.
    methods: HashMap<Arc<str>, Arc<Entry>, BuildHasherDefault<FnvHasher>>,
    duplicates: Vec<Arc<str>>,
    max_decoding: Option<usize>,
    max_encoding: Option<usize>,
}

/// A method.
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) kind: MethodKind,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) max_decoding: Option<usize>,
    pub(crate) max_encoding: Option<usize>,
    pub(crate) priority: Priority,
    pub(crate) needed: Needed,
}

impl Entry {
    /// The largest request that it takes, where a service that says nothing takes so much.
    #[inline]
    pub(crate) fn limit(&self, default: usize) -> usize {
        self.max_decoding.unwrap_or(default)
    }
}

impl Registry {
    /// The largest request and the largest reply of the methods that are registered after this,
    /// payload only; none for the server's own limits.
    pub fn limits(&mut self, max_decoding: Option<usize>, max_encoding: Option<usize>) {
        self.max_decoding = max_decoding;
        self.max_encoding = max_encoding;
    }

    /// A method with one reply.
    pub fn unary<Req, Resp, F, Fut>(&mut self, method: impl Into<Arc<str>>, handler: F)
    where
        Req: Message + Default + 'static,
        Resp: Message + 'static,
        F: Fn(ServerCtx, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Resp, Status>> + Send + 'static,
    {
        self.insert(
            method.into(),
            MethodKind::TwoWay,
            move |mut incoming: Incoming| {
                let slot = incoming.take_slot();
                let call = incoming
                    .into_message::<Req>()
                    .map(|(ctx, request)| handler(ctx, request));
                async move { Ok(Reply::send(slot.as_ref(), &call?.await?)) }
            },
        );
    }

    /// A method without a reply.
    pub fn one_way<Req, F, Fut>(&mut self, method: impl Into<Arc<str>>, handler: F)
    where
        Req: Message + Default + 'static,
        F: Fn(ServerCtx, Req) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.insert(
            method.into(),
            MethodKind::OneWay,
            move |incoming: Incoming| {
                let call = incoming
                    .into_message::<Req>()
                    .map(|(ctx, request)| handler(ctx, request));
                async move {
                    call?.await;
                    Ok(Reply::none())
                }
            },
        );
    }

    /// A method with any number of replies.
    pub fn streaming<Req, Resp, F, Fut>(&mut self, method: impl Into<Arc<str>>, handler: F)
    where
        Req: Message + Default + 'static,
        Resp: Message + 'static,
        F: Fn(ServerCtx, Req, ReplySender<Resp>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.insert(
            method.into(),
            MethodKind::Streamed,
            move |incoming: Incoming| {
                let sink = incoming.sink();
                let call = incoming.into_message::<Req>().and_then(|(ctx, request)| {
                    let sink = sink.ok_or_else(|| {
                        Status::internal("the request of a streamed method came as another one")
                    })?;
                    Ok(handler(ctx, request, ReplySender::new(sink)))
                });
                async move {
                    call?.await?;
                    Ok(Reply::none())
                }
            },
        );
    }

    fn insert(&mut self, name: Arc<str>, kind: MethodKind, handler: impl Handler + 'static) {
        let entry = Arc::new(Entry {
            name: Arc::clone(&name),
            kind,
            handler: Box::new(handler),
            max_decoding: self.max_decoding,
            max_encoding: self.max_encoding,
            priority: Priority::default(),
            needed: Needed::default(),
        });
        if self.methods.insert(Arc::clone(&name), entry).is_some() {
            self.duplicates.push(name);
        }
    }

    /// How important this method is, or all of this service. False where there is none such.
    pub(crate) fn prioritize(&mut self, name: &str, priority: Priority) -> bool {
        let mut found = false;
        for (method, entry) in &mut self.methods {
            let rest = method.strip_prefix(name);
            let is_named = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            // Nobody else has it before the server has begun.
            if is_named && let Some(entry) = Arc::get_mut(entry) {
                entry.priority = priority;
                found = true;
            }
        }
        found
    }

    pub(crate) fn get(&self, method: &str) -> Option<&Arc<Entry>> {
        self.methods.get(method)
    }

    /// The full names of all methods.
    #[cfg(feature = "reflection")]
    pub(crate) fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(|method| &**method)
    }

    /// The names of the services whose methods these are; a name may come more than once.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        let methods = self.methods.keys();
        methods.filter_map(|method| method.rsplit_once('.').map(|(service, _)| service))
    }

    /// Whether the method is known to have no reply.
    pub(crate) fn is_one_way(&self, method: &str) -> bool {
        self.get(method)
            .is_some_and(|entry| entry.kind == MethodKind::OneWay)
    }

    /// The methods that were registered more than once.
    pub(crate) fn duplicates(&self) -> &[Arc<str>] {
        &self.duplicates
    }

    /// The largest request that any method takes.
    pub(crate) fn max_decoding(&self, default: usize) -> usize {
        self.methods
            .values()
            .map(|entry| entry.max_decoding.unwrap_or(default))
            .fold(default, usize::max)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut methods: Vec<_> = self.methods.keys().collect();
        methods.sort_unstable();
        f.debug_struct("Registry")
            .field("methods", &methods)
            .finish()
    }
}
