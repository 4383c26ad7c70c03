//! How many connections the process can have, by the descriptors that the system gives it.

/// What a server leaves for all but connections: listeners, files, names that are looked up, the
/// runtime.
const BESIDES: usize = 64;

/// How many connections are told at once why they are refused. Others are closed without a word.
pub(super) const REFUSALS: usize = 64;

/// How many it leaves for each node that the process calls: one for its connection, and one for the
/// attempt that takes its place.
const EACH_NODE: usize = 2;

/// How many connections a process has descriptors for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fitted {
    pub(super) connections: usize,
    /// Those that are being told why they are refused, beside them.
    pub(super) refusals: usize,
}

/// The bounds that are left of this many connections, in a process that calls so many nodes.
pub(super) fn fitted(connections: usize, nodes: usize) -> Fitted {
    let fitted = left(all().unwrap_or(usize::MAX), nodes);
    Fitted {
        connections: connections.min(fitted.connections),
        ..fitted
    }
}

fn left(all: usize, nodes: usize) -> Fitted {
    let nodes = nodes.saturating_mul(EACH_NODE);
    let besides = nodes.saturating_add(BESIDES + REFUSALS);
    // Where hardly any is left, half of them: a server that accepts none is of no use.
    let connections = all.saturating_sub(besides).max(all / 2).max(1);
    // Half of what is left then beside nodes: files and the like get the others.
    let rest = all.saturating_sub(connections).saturating_sub(nodes);
    Fitted {
        connections,
        refusals: REFUSALS.min(rest / 2),
    }
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
        for (all, nodes, connections, refusals) in [
            (1024, 0, 896, 64),
            (1024, 5, 886, 64),
            // Of the other half ten are for nodes, and half of the rest for refusals.
            (64, 5, 32, 11),
            (16, 5, 8, 0),
            (0, 0, 1, 0),
        ] {
            let expected = Fitted {
                connections,
                refusals,
            };
            assert_eq!(
                left(all, nodes),
                expected,
                "{all} descriptors, {nodes} nodes"
            );
        }
        assert_eq!(left(usize::MAX, 3).refusals, REFUSALS);
        assert_eq!(fitted(10, 3).connections, 10);
    }
}
