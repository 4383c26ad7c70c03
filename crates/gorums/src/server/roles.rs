//! Who may call which method.

use std::collections::HashMap;
use std::fmt;

use crate::error::Status;
use crate::handler::{Incoming, Interceptor, Next, Reply, ServerCtx};
use crate::runtime::BoxFuture;

/// Lets callers have methods by the roles that they are in, and refuses all others.
///
/// A role is a name and who is in it: a question about what is known of the caller, by what its
/// transport has [proved](ServerCtx::proven), say, or [which node](ServerCtx::node_id) it is. A method
/// is for some roles, and so is a service, for those of its methods of which nothing else is said.
/// **Whatever nothing is said of is refused.** A caller may be in several roles, and is asked about
/// each role in the order in which they were named until one fits.
///
/// It is an [interceptor](crate::ServerBuilder::interceptor): those that were added before it see what
/// it refuses. Calls of ordinary gRPC clients pass it as well.
///
/// ```no_run
/// # fn run(tls: gorums::tls::Tls) {
/// use gorums::Server;
/// use gorums::server::Roles;
/// use gorums::tls::{NodeUris, TlsPeer};
///
/// let roles = Roles::new()
///     // A node that has proved its id, or this process itself.
///     .role("replica", |caller| caller.node_id().is_some())
///     .role("client", |caller| {
///         let peer = caller.proven::<TlsPeer>();
///         peer.is_some_and(|peer| peer.uris().any(|uri| uri == "gorums://accounts/client"))
///     })
///     .role("anybody", |_| true)
///     .method("accounts.Accounts.Replicate", ["replica"])
///     .service("accounts.Accounts", ["client", "replica"])
///     .service("grpc.health.v1.Health", ["anybody"]);
/// let server = Server::builder()
///     .transport(tls)
///     .node_proof(NodeUris::of("accounts"))
///     .interceptor(roles);
/// # drop(server);
/// # }
/// ```
#[derive(Default)]
#[must_use = "it is to be given to `ServerBuilder::interceptor`"]
pub struct Roles {
    roles: Vec<Role>,
    methods: HashMap<String, Vec<usize>>,
    services: HashMap<String, Vec<usize>>,
}

struct Role {
    name: String,
    has: Box<dyn Fn(&ServerCtx) -> bool + Send + Sync>,
}

impl Roles {
    /// Nobody may call anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A role, and whether a caller is in it.
    ///
    /// # Panics
    /// There is a role of this name already.
    pub fn role(
        mut self,
        name: &str,
        has: impl Fn(&ServerCtx) -> bool + Send + Sync + 'static,
    ) -> Self {
        assert!(
            self.roles.iter().all(|role| role.name != name),
            "there are two roles {name:?}"
        );
        self.roles.push(Role {
            name: name.to_owned(),
            has: Box::new(has),
        });
        self
    }

    /// Lets those in one of these roles call a method, by its full name, `package.Service.Method`,
    /// and nobody else.
    ///
    /// # Panics
    /// There is no such role yet, or the method has been spoken of.
    pub fn method<'a>(mut self, method: &str, roles: impl IntoIterator<Item = &'a str>) -> Self {
        let roles = self.numbers(roles);
        let before = self.methods.insert(method.to_owned(), roles);
        assert!(before.is_none(), "the method {method} is spoken of twice");
        self
    }

    /// The same for all methods of a service, `package.Service`, that are not named themselves.
    ///
    /// # Panics
    /// There is no such role yet, or the service has been spoken of.
    pub fn service<'a>(mut self, service: &str, roles: impl IntoIterator<Item = &'a str>) -> Self {
        let roles = self.numbers(roles);
        let before = self.services.insert(service.to_owned(), roles);
        assert!(before.is_none(), "the service {service} is spoken of twice");
        self
    }

    fn numbers<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
        let number = |name| {
            let number = self.roles.iter().position(|role| role.name == name);
            number.unwrap_or_else(|| panic!("there is no role {name:?}"))
        };
        names.into_iter().map(number).collect()
    }

    fn check(&self, caller: &ServerCtx) -> Result<(), Status> {
        let method = caller.method();
        let of_service = || {
            let (service, _) = method.rsplit_once('.')?;
            self.services.get(service)
        };
        let Some(roles) = self.methods.get(method).or_else(of_service) else {
            return Err(Status::permission_denied("nobody may call this method"));
        };
        let roles = roles.iter().map(|&number| &self.roles[number]);
        if roles.clone().any(|role| (role.has)(caller)) {
            return Ok(());
        }
        let names: Vec<_> = roles.map(|role| &*role.name).collect();
        Err(Status::permission_denied(format!(
            "this method is for others: {}",
            names.join(", ")
        )))
    }
}

impl Interceptor for Roles {
    fn call(&self, incoming: Incoming, next: Next) -> BoxFuture<'static, Result<Reply, Status>> {
        match self.check(incoming.ctx()) {
            Ok(()) => Box::pin(next.run(incoming)),
            Err(status) => Box::pin(std::future::ready(Err(status))),
        }
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.roles.iter().map(|role| &role.name);
        f.debug_struct("Roles")
            .field("roles", &names.collect::<Vec<_>>())
            .field("methods", &self.methods.len())
            .field("services", &self.services.len())
            .finish()
    }
}
