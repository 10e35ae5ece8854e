//! Tasks of connections: who owns them, how they end, and what is said of one that panicked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::Drained;

/// Waits until all have ended, or cuts those that are left.
pub(super) async fn finish(mut connections: JoinSet<()>, at_most: Duration) -> Drained {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if timeout(at_most, all_ended).await.is_ok() {
        return Drained { aborted: 0 };
    }
    let aborted = connections.len();
    connections.shutdown().await;
    Drained { aborted }
}

/// A panic in one connection ends that connection alone, but it is a defect and must be seen.
pub(super) fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a defect");
    }
}

/// The calls that run on one HTTP/2 connection. They end with it: the last clone aborts them.
#[derive(Clone, Default)]
pub(super) struct ConnectionTasks(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = calls.try_join_next() {
            report_panic(ended);
        }
        calls.spawn(call);
    }
}
