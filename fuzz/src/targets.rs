//! All targets.

mod addresses;
mod descriptors;
mod disk;
mod prompt;

use gorums::fuzzing;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frames",
        about: "the length prefixes of messages, in bytes that are cut anywhere",
        check: fuzzing::frames,
    },
    Target {
        name: "envelopes",
        about: "the envelope of a message, against prost",
        check: fuzzing::envelopes,
    },
    Target {
        name: "inbound",
        about: "the inbound half of a stream, with handlers and calls",
        check: fuzzing::inbound,
    },
    Target {
        name: "headers",
        about: "headers, trailers and metadata",
        check: fuzzing::headers,
    },
    Target {
        name: "addresses",
        about: "addresses, and lists of nodes",
        check: addresses::check,
    },
    Target {
        name: "descriptors",
        about: "descriptors, and the code that is generated of them",
        check: descriptors::check,
    },
    Target {
        name: "prompt",
        about: "the lines that are typed at the prompts of the examples",
        check: prompt::check,
    },
    Target {
        name: "disk",
        about: "the files of a replica, damaged in any way",
        check: disk::check,
    },
];
