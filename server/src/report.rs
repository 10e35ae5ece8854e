//! What proxies report: readings of nodes, as they were checked at the edge.
//!
//! Plain values. In: what the edge made of a call, or what the store kept. Never: asks anybody.

use std::time::SystemTime;

use pulse_proto::{Node, Position, SensorKind};
use serde::Serialize;
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
    pub readings: Vec<Reading>,
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
    pub nodes: Vec<NodeReport>,
}

/// One value of one sensor.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Reading {
    /// The sensor's stable name on its node.
    pub sensor: String,
    /// The chip's name.
    pub chip: String,
    /// The label that the driver gives; may be empty.
    pub label: String,
    /// What it measures.
    pub kind: SensorKind,
    /// Degrees Celsius.
    pub temperature_celsius: f64,
    /// The driver's upper limit, degrees Celsius.
    pub max_celsius: Option<f64>,
    /// The driver's critical limit, degrees Celsius.
    pub critical_celsius: Option<f64>,
}
