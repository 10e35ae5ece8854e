//! What proxies report: readings of nodes, as they were checked at the edge.
//!
//! Plain values. In: what the edge made of a call, or what the store kept. Always: reports of one node that were read from
//! the same sensors share what is known of them, so a further report costs its values and no more. Never: asks anybody.

use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::{Node, Position, SensorKind};
use uuid::Uuid;

/// What was read of one node, or why it could not be.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeReport {
    /// The proxy that read it.
    pub proxy: Uuid,
    /// The instance to which the node belongs.
    pub instance: Uuid,
    /// The node, as it stood in the list.
    pub node: Node,
    /// When it was read, by the proxy's clock.
    pub collected_at: SystemTime,
    /// When the report arrived.
    pub received_at: SystemTime,
    /// The list under which it was read; zeros: the static list.
    pub position: Position,
    /// The values; empty if it could not be read.
    pub readings: Readings,
    /// Why it could not be read; empty if it could.
    pub unreadable_reason: String,
}

impl NodeReport {
    /// Whether the node could be read.
    pub fn is_readable(&self) -> bool {
        self.unreadable_reason.is_empty()
    }

    /// Whether this takes the place of `before` as the newest of its node: it was collected later, and does not hide
    /// what another proxy could read.
    pub fn replaces(&self, before: &NodeReport) -> bool {
        self.collected_at > before.collected_at
            && (self.is_readable() || !before.is_readable() || self.proxy == before.proxy)
    }
}

/// A report as it is stored: once, however often it is sent.
#[derive(Clone, Debug)]
pub struct Report {
    /// The proxy that sent it.
    pub proxy: Uuid,
    /// One start of the proxy.
    pub session: Uuid,
    /// Its place in the session, from 1. A sequence at or below the session's highest stored one is a double.
    pub sequence: u64,
    /// One for each node that is taken.
    pub nodes: Vec<Arc<NodeReport>>,
}

/// The values of one node, and the sensor of each.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Readings {
    /// As many as there are values.
    sensors: Arc<[Sensor]>,
    /// Degrees Celsius.
    celsius: Vec<f64>,
}

/// What one value is read from.
#[derive(Clone, PartialEq, Debug)]
pub struct Sensor {
    /// The sensor's stable name on its node.
    pub name: String,
    /// The chip's name.
    pub chip: String,
    /// The label that the driver gives; may be empty.
    pub label: String,
    /// What it measures.
    pub kind: SensorKind,
    /// The driver's upper limit, degrees Celsius.
    pub max_celsius: Option<f64>,
    /// The driver's critical limit, degrees Celsius.
    pub critical_celsius: Option<f64>,
}

impl Readings {
    /// Values of sensors that are known already, in their order.
    ///
    /// # Panics
    /// When there are not as many values as sensors.
    pub fn of(sensors: Arc<[Sensor]>, celsius: Vec<f64>) -> Readings {
        assert_eq!(sensors.len(), celsius.len(), "each sensor has a value");
        Readings { sensors, celsius }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.celsius.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.celsius.is_empty()
    }

    /// The sensors, in the order of their values.
    pub fn sensors(&self) -> &Arc<[Sensor]> {
        &self.sensors
    }

    /// The values, degrees Celsius.
    pub fn celsius(&self) -> &[f64] {
        &self.celsius
    }

    /// Each sensor with its value, degrees Celsius.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Sensor, f64)> {
        self.sensors.iter().zip(self.celsius.iter().copied())
    }
}

impl FromIterator<(Sensor, f64)> for Readings {
    fn from_iter<I: IntoIterator<Item = (Sensor, f64)>>(pairs: I) -> Readings {
        let (sensors, celsius): (Vec<Sensor>, Vec<f64>) = pairs.into_iter().unzip();
        Readings { sensors: sensors.into(), celsius }
    }
}
