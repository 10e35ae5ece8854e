//! How long each step of a simulated database takes.

use std::time::Duration;

use pulse_proto::Chance;

/// The longest that one step takes: a disk that is busy, but not failing.
const LONGEST_STEP: Duration = Duration::from_millis(60);

/// How long each step takes, as chance gives it.
#[derive(Clone, Debug)]
pub(in crate::store) struct Pace(pub(in crate::store) Chance);

impl Pace {
    /// Waits for one step.
    pub(in crate::store) async fn wait(&self) {
        tokio::time::sleep(LONGEST_STEP.mul_f64(self.0.fraction())).await;
    }
}
