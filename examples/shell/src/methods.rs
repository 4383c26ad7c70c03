//! The methods that a program's replicas serve, as its descriptors tell them.

use std::fmt;

use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::command::nearest;

/// All methods of a program's services.
pub(crate) struct Methods(Vec<Method>);

/// A method that can be called by its descriptors.
pub(crate) struct Method {
    /// `package.Service.Method`, for calls.
    pub(crate) name: &'static str,
    pub(crate) descriptor: MethodDescriptor,
    pub(crate) answers: Answers,
}

/// How a method is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    One,
    Many,
    None,
}

impl Methods {
    /// Those of these encoded descriptors, which the code generator wrote.
    pub(crate) fn of(descriptors: &[u8]) -> Self {
        let pool = DescriptorPool::decode(descriptors).expect("the code generator checked them");
        let services = pool.services();
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        Self(methods.map(Method::new).collect())
    }

    /// Their short names.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |method: &Method| method.descriptor.name().to_owned();
        self.0.iter().map(name).collect()
    }

    /// The method of this name: alone, or with its service, with its package or without, and with a
    /// slash or a dot before its last part.
    ///
    /// # Errors
    ///
    /// Where none has it, or several.
    pub(crate) fn find(&self, name: &str) -> Result<&Method, NotOne> {
        let full = name.strip_prefix('/').unwrap_or(name).replace('/', ".");
        let is_meant = |method: &&Method| {
            let before = method.name.strip_suffix(&full);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let found: Vec<_> = self.0.iter().filter(is_meant).collect();
        match found[..] {
            [method] if !full.is_empty() => Ok(method),
            _ => Err(NotOne {
                name: name.to_owned(),
                are_several: !full.is_empty() && found.len() > 1,
                nearest: self.nearest(&full),
                all: self.0.iter().map(Method::to_string).collect(),
            }),
        }
    }

    /// What was probably meant.
    fn nearest(&self, name: &str) -> Option<String> {
        let short = name.rsplit('.').next().unwrap_or(name).to_lowercase();
        let names = self.names();
        let lower: Vec<_> = names.iter().map(|name| name.to_lowercase()).collect();
        let nearest = nearest(&short, lower.iter().map(String::as_str))?;
        let index = lower.iter().position(|name| name == nearest)?;
        names.into_iter().nth(index)
    }
}

impl Method {
    fn new(descriptor: MethodDescriptor) -> Self {
        let options = descriptor.options();
        let is = |option| {
            let pool = descriptor.parent_pool();
            let extension = pool.get_extension_by_name(option);
            extension
                .is_some_and(|extension| options.get_extension(&extension).as_bool() == Some(true))
        };
        let answers = if is("gorums.unicast") || is("gorums.multicast") {
            Answers::None
        } else if descriptor.is_server_streaming() {
            Answers::Many
        } else {
            Answers::One
        };
        Self {
            // Calls name methods that live as long as the process. There are few, and a session, of which a
            // process has one, makes them once.
            name: Box::leak(descriptor.full_name().to_owned().into_boxed_str()),
            descriptor,
            answers,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = &self.descriptor;
        let service = method.parent_service();
        let request = method.input();
        write!(
            f,
            "{}/{}  {}",
            service.full_name(),
            method.name(),
            request.name()
        )?;
        match self.answers {
            Answers::None => f.write_str(", one-way"),
            Answers::One => write!(f, " -> {}", method.output().name()),
            Answers::Many => write!(f, " -> stream {}", method.output().name()),
        }
    }
}

/// A name that is not that of one method.
#[derive(Debug)]
pub(crate) struct NotOne {
    name: String,
    are_several: bool,
    nearest: Option<String>,
    all: Vec<String>,
}

impl fmt::Display for NotOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nearest, .. } = self;
        match (self.are_several, nearest) {
            (true, _) => write!(f, "several methods are called {name:?}: say which service")?,
            (false, Some(nearest)) => {
                write!(f, "there is no method {name:?}; did you mean {nearest:?}?")?;
            }
            (false, None) => write!(f, "there is no method {name:?}")?,
        }
        f.write_str("\nthe methods are:")?;
        for method in &self.all {
            write!(f, "\n  {method}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NotOne {}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::prost_types::{
        DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
        ServiceDescriptorProto,
    };

    use super::*;

    fn methods() -> Methods {
        let method = |name: &str, streams| MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: Some(".p.Empty".to_owned()),
            output_type: Some(".p.Empty".to_owned()),
            server_streaming: Some(streams),
            ..MethodDescriptorProto::default()
        };
        let service = |name: &str, method| ServiceDescriptorProto {
            name: Some(name.to_owned()),
            method,
            ..ServiceDescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("p.proto".to_owned()),
            package: Some("p".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("Empty".to_owned()),
                ..DescriptorProto::default()
            }],
            service: vec![
                service("One", vec![method("Read", false), method("Same", false)]),
                service("Other", vec![method("Same", true)]),
            ],
            ..FileDescriptorProto::default()
        };
        Methods::of(&FileDescriptorSet { file: vec![file] }.encode_to_vec())
    }

    fn found(name: &str) -> Result<&'static str, String> {
        let methods = methods();
        let found = methods.find(name).map(|method| method.name);
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn a_method_is_found_by_each_of_its_names() {
        for name in [
            "Read",
            "One/Read",
            "One.Read",
            "p.One/Read",
            "/p.One/Read",
            "p.One.Read",
        ] {
            assert_eq!(found(name), Ok("p.One.Read"), "{name}");
        }
        assert_eq!(found("Other/Same"), Ok("p.Other.Same"));
        let methods = methods();
        let answers = |name| methods.find(name).expect("there is one").answers;
        assert_eq!(answers("Other/Same"), Answers::Many);
        assert_eq!(answers("One/Same"), Answers::One);
        assert_eq!(methods.names(), ["Read", "Same", "Same"]);
    }

    #[test]
    fn a_name_that_is_not_that_of_one_method_is_told_with_all_that_there_are() {
        let all = "\nthe methods are:\n  p.One/Read  Empty -> Empty\n  p.One/Same  Empty -> Empty\n  \
                   p.Other/Same  Empty -> stream Empty";
        for (name, error) in [
            (
                "Raed",
                "there is no method \"Raed\"; did you mean \"Read\"?",
            ),
            (
                "q.One/read",
                "there is no method \"q.One/read\"; did you mean \"Read\"?",
            ),
            ("ead", "there is no method \"ead\"; did you mean \"Read\"?"),
            ("Delete", "there is no method \"Delete\""),
            ("", "there is no method \"\""),
            ("/", "there is no method \"/\""),
            (
                "Same",
                "several methods are called \"Same\": say which service",
            ),
        ] {
            assert_eq!(found(name), Err(format!("{error}{all}")), "{name}");
        }
    }
}
