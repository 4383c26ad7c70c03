use std::time::Duration;

use gorums::NodeId;
use gorums::quorum::Quorums;

use crate::AnalysisError;
use crate::per_node::PerNode;

/// How probable it is that a node is down, over time.
///
/// ```
/// use std::time::Duration;
///
/// use gorums_quorums::FaultCurve;
///
/// # fn main() -> Result<(), gorums_quorums::AnalysisError> {
/// let day = Duration::from_secs(86_400);
/// // Fails once in four years, and is left alone: after one it is gone with more than 20 %.
/// let left_alone = FaultCurve::exponential(4 * 365 * day)?;
/// assert!((left_alone.at(365 * day) - 0.2212).abs() < 1e-4);
/// // Fails once in a month, and is up again after an hour: at any time later with 0.14 %.
/// let repaired = FaultCurve::repaired(30 * day, day / 24)?;
/// assert!((repaired.at(365 * day) - 0.001_387).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultCurve(Kind);

/// Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Constant(f64),
    Weibull { scale: f64, shape: f64 },
    Repaired { up: f64, down: f64 },
}

impl FaultCurve {
    /// The same at any time.
    ///
    /// # Errors
    /// It is no number from 0 to 1.
    pub fn constant(probability: f64) -> Result<Self, AnalysisError> {
        match (0.0..=1.0).contains(&probability) {
            true => Ok(Self(Kind::Constant(probability))),
            false => Err(AnalysisError::new(format!(
                "the probability that a node is down is a number from 0 to 1, and not {probability}"
            ))),
        }
    }

    /// Up at first, failing at the same rate at any time, after so long on the average, and then left
    /// alone: 1 - exp(-t / mean).
    ///
    /// # Errors
    /// The mean is zero.
    pub fn exponential(mean: Duration) -> Result<Self, AnalysisError> {
        Self::weibull(mean, 1.0)
    }

    /// Up at first, failing at a rate that changes, and then left alone: 1 - exp(-(t / scale)^shape).
    /// With a shape below one most failures are early, as of what was not tested well; with one above
    /// most are late, as of what wears out. After the scale 63 % have failed, whatever the shape.
    ///
    /// # Errors
    /// The scale is zero, or the shape is not above zero, or no number.
    pub fn weibull(scale: Duration, shape: f64) -> Result<Self, AnalysisError> {
        if scale.is_zero() {
            return Err(AnalysisError::new(
                "the time until a node fails is above zero",
            ));
        }
        if !(shape.is_normal() && shape > 0.0) {
            return Err(AnalysisError::new(format!(
                "the shape of a fault curve is a number above zero, and not {shape}"
            )));
        }
        let scale = scale.as_secs_f64();
        Ok(Self(Kind::Weibull { scale, shape }))
    }

    /// Up at first, failing after so long on the average, and up again after being down so long on
    /// the average, over and over, both at the same rate at any time: in the long run
    /// down / (up + down).
    ///
    /// # Errors
    /// One of both is zero.
    pub fn repaired(up: Duration, down: Duration) -> Result<Self, AnalysisError> {
        if up.is_zero() || down.is_zero() {
            return Err(AnalysisError::new(
                "the times that a node is up, and down, are above zero",
            ));
        }
        let [up, down] = [up, down].map(|time| time.as_secs_f64());
        Ok(Self(Kind::Repaired { up, down }))
    }

    /// How probable it is that the node is down so long after it was new.
    #[must_use]
    pub fn at(&self, time: Duration) -> f64 {
        let time = time.as_secs_f64();
        // How many have failed by then, with all digits where they are few.
        let failed = |hazard: f64| -(-hazard).exp_m1();
        match self.0 {
            Kind::Constant(probability) => probability,
            Kind::Weibull { scale, shape } => failed((time / scale).powf(shape)),
            Kind::Repaired { up, down } => down / (up + down) * failed(time / up + time / down),
        }
    }
}

/// How probable it is that each node is down, independently of the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults(PerNode<FaultCurve>);

/// How probable it is that operations fail, as too many nodes are down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailureProbability {
    /// That there is no read quorum.
    pub reads: f64,
    /// That there is no write quorum.
    pub writes: f64,
    /// That there is no read quorum, or no write quorum: no less than each of both, and no more than
    /// their sum. It may be unknown where each of them is known, of large systems.
    pub either: Option<f64>,
}

impl Faults {
    /// Each node by this curve.
    #[must_use]
    pub fn each(curve: FaultCurve) -> Self {
        Self(PerNode::each(curve))
    }

    /// This node by this curve.
    #[must_use]
    pub fn with(self, node: impl Into<NodeId>, curve: FaultCurve) -> Self {
        Self(self.0.with(node.into(), curve))
    }

    /// How probable it is that this node is down at this time.
    #[must_use]
    pub fn node(&self, node: impl Into<NodeId>, time: Duration) -> f64 {
        self.0.of(node.into()).at(time)
    }

    /// How probable it is that operations of this system fail at this time. It is exact: by formula
    /// for systems in which nodes or votes are counted, in groups or not, of any size; and otherwise
    /// by a look at all sets of up to 20 nodes.
    ///
    /// # Errors
    /// It is not known of reads or of writes, with more than 20 nodes: see
    /// [`QuorumSets::failure_probability`](gorums::quorum::QuorumSets::failure_probability).
    pub fn failure(
        &self,
        system: &Quorums,
        time: Duration,
    ) -> Result<FailureProbability, AnalysisError> {
        let down = |node: NodeId| self.node(node, time);
        let known = |probability: Option<f64>| {
            probability.ok_or_else(|| {
                AnalysisError::new(format!(
                    "how probable it is that too many of {} nodes are down is known for what is \
                     counted, and up to 20 nodes",
                    system.nodes().len()
                ))
            })
        };
        Ok(FailureProbability {
            reads: known(system.read().failure_probability(down))?,
            writes: known(system.write().failure_probability(down))?,
            either: system.failure_probability(down),
        })
    }
}
