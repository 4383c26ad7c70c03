//! Handlers that are added without the type that was generated for them.
//~ error[E0277]: `Replica` is no service: wrap the handlers in the type that was generated for them
//~ `gorums-build` generates the trait `lock_server::Lock`

use gorums::Server;

pub struct Replica;

pub fn serve() {
    drop(Server::builder().add_service(Replica));
}
