//! Rust names of services and methods.

use heck::{ToSnakeCase, ToUpperCamelCase};

/// The Rust name of a method, and whether it had to be changed to leave room for the client's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodName {
    pub(crate) rust: String,
    /// The name that the client keeps for itself.
    pub(crate) renamed_from: Option<String>,
}

/// Names that every generated client has, or that a user calls on it.
///
/// Names that begin with `with_` belong to the client too: its settings do, and there may be more
/// of them later.
const CLIENT_NAMES: &[&str] = &["new", "configuration", "on", "clone", "clone_from"];

/// The Rust name of a method, or `None` for a name without a letter or digit.
pub(crate) fn method(proto_name: &str) -> Option<MethodName> {
    let name = proto_name.to_snake_case();
    if name.is_empty() {
        return None;
    }
    if CLIENT_NAMES.contains(&name.as_str()) || name.starts_with("with_") {
        // No other method can have this name: snake case never ends in an underscore, except for
        // keywords, which are not among the client's names.
        return Some(MethodName {
            rust: format!("{name}_"),
            renamed_from: Some(name),
        });
    }
    Some(MethodName {
        rust: identifier(name),
        renamed_from: None,
    })
}

/// The names that a service gives to its Rust items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceNames {
    pub(crate) client_module: String,
    pub(crate) client: String,
    pub(crate) server_module: String,
    pub(crate) server: String,
    pub(crate) handlers: String,
}

/// The Rust names for a service, or `None` for a name without a letter or digit.
pub(crate) fn service(proto_name: &str) -> Option<ServiceNames> {
    let module = start_with_letter(proto_name.to_snake_case());
    let item = start_with_letter(proto_name.to_upper_camel_case());
    if module.is_empty() || item.is_empty() {
        return None;
    }
    Some(ServiceNames {
        client_module: format!("{module}_client"),
        client: format!("{item}Client"),
        server_module: format!("{module}_server"),
        server: format!("{item}Server"),
        handlers: identifier(item),
    })
}

/// The module in which prost puts what is nested in a message.
pub(crate) fn message_module(message: &str) -> String {
    identifier(message.to_snake_case())
}

/// The name that prost gives to a message, an enum, a oneof, or a variant of a oneof. Empty if there
/// is no letter or digit in it.
pub(crate) fn type_name(name: &str) -> String {
    identifier(name.to_upper_camel_case())
}

/// The name that prost gives to a field.
pub(crate) fn field(name: &str) -> String {
    identifier(name.to_snake_case())
}

/// The name that prost gives to a value of an enum: without the Rust name of the enum before it.
pub(crate) fn variant(enum_type: &str, value: &str) -> String {
    let name = type_name(value);
    match name.strip_prefix(enum_type) {
        Some(rest) if rest.starts_with(char::is_uppercase) => identifier(rest.to_owned()),
        _ => identifier(name),
    }
}

/// Makes a name an identifier as prost does, so that both agree.
fn identifier(name: String) -> String {
    match name.as_str() {
        "as" | "break" | "const" | "continue" | "else" | "enum" | "false" | "fn" | "for" | "if"
        | "impl" | "in" | "let" | "loop" | "match" | "mod" | "move" | "mut" | "pub" | "ref"
        | "return" | "static" | "struct" | "trait" | "true" | "type" | "unsafe" | "use"
        | "where" | "while" | "dyn" | "abstract" | "become" | "box" | "do" | "final" | "macro"
        | "override" | "priv" | "typeof" | "unsized" | "virtual" | "yield" | "async" | "await"
        | "try" | "gen" => format!("r#{name}"),
        "super" | "self" | "Self" | "extern" | "crate" => format!("{name}_"),
        _ => start_with_letter(name),
    }
}

/// `_1` loses its underscore in either case, and a digit cannot begin an identifier.
fn start_with_letter(name: String) -> String {
    if name.starts_with(|first: char| first.is_numeric()) {
        format!("_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_in_snake_case() {
        for (proto, rust) in [
            ("ReadRPC", "read_rpc"),
            ("WriteUnicast", "write_unicast"),
            ("ReadQC", "read_qc"),
            ("ReadNestedQC", "read_nested_qc"),
            ("Type", "r#type"),
            ("Self", "self_"),
            ("_1", "_1"),
            ("Within", "within"),
            ("Renew", "renew"),
        ] {
            let name = method(proto).expect("has letters");
            assert_eq!((name.rust.as_str(), name.renamed_from), (rust, None));
        }
        assert_eq!(method("__"), None);
    }

    #[test]
    fn methods_that_the_client_has_get_an_underscore() {
        for (proto, rust) in [
            ("New", "new_"),
            ("On", "on_"),
            ("Configuration", "configuration_"),
            ("Clone", "clone_"),
            ("WithTimeout", "with_timeout_"),
            ("WithWhatever", "with_whatever_"),
        ] {
            let name = method(proto).expect("has letters");
            assert_eq!(name.rust, rust);
            assert!(name.renamed_from.is_some());
        }
    }

    #[test]
    fn services_name_two_modules_and_three_types() {
        let names = service("KVStore").expect("has letters");
        assert_eq!(
            [
                names.client_module,
                names.client,
                names.server_module,
                names.server,
                names.handlers
            ],
            [
                "kv_store_client",
                "KvStoreClient",
                "kv_store_server",
                "KvStoreServer",
                "KvStore"
            ]
        );
        assert_eq!(service("Self").expect("has letters").handlers, "Self_");
        assert_eq!(
            service("_1").expect("has a digit").client_module,
            "_1_client"
        );
    }
}
