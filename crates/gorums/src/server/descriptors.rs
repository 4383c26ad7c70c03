//! How many connections the process can have, by the descriptors that the system gives it.

use super::accept::REFUSALS;

/// What a server leaves for all but the connections that it serves: listeners, files, names that are
/// looked up, the runtime, and connections that are told why they are refused.
const BESIDES: usize = 64 + REFUSALS;

/// How many it leaves for each node that the process calls: one for its connection, and one for the
/// attempt that takes its place.
const EACH_NODE: usize = 2;

/// The bound of connections that is left of this one, in a process that calls so many nodes.
pub(super) fn fitted(connections: usize, nodes: usize) -> usize {
    let Some(all) = all() else {
        return connections;
    };
    connections.min(left(all, nodes))
}

fn left(all: usize, nodes: usize) -> usize {
    let besides = nodes.saturating_mul(EACH_NODE).saturating_add(BESIDES);
    // Where hardly any is left, half of them: a server that accepts none is of no use.
    all.saturating_sub(besides).max(all / 2).max(1)
}

/// How many descriptors the process may have, where the system has such a bound.
fn all() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};

        let soft = getrlimit(Resource::Nofile).current?;
        Some(usize::try_from(soft).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_needs_besides_is_left() {
        assert_eq!(left(1024, 0), 896);
        assert_eq!(left(1024, 5), 886);
        assert_eq!(left(64, 5), 32);
        assert_eq!(left(0, 0), 1);
        assert_eq!(left(usize::MAX, usize::MAX), usize::MAX / 2);
        assert_eq!(fitted(10, 3), 10);
    }
}
