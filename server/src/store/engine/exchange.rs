//! The commit of an exchange of the sealing key: the file before it, the key in force after it, both by the thread that writes.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::fault::Fault;
use super::writer::{Request, Writer};
use super::{Engine, catalog};
use crate::store::{Commit, SealingExchange, StoreError, postgres};

impl Engine {
    pub(super) async fn commit_exchange(
        &self,
        commit: Commit,
        exchange: SealingExchange,
    ) -> Result<String, StoreError> {
        let sealing = Arc::clone(&self.sealing);
        let replica = self.shared.as_ref().map(|shared| shared.replica);
        let (answer_tx, answer_rx) = oneshot::channel();
        let job = move |writer: &mut Writer| {
            let outcome = sealing.write(&exchange).and_then(|()| {
                writer.transact(|sql, _| {
                    if let Some(replica) = replica {
                        postgres::replicas::alone(sql, replica)?;
                    }
                    catalog::commit(sql, &commit, &exchange.to)
                })
            });
            sealing.end(&exchange, outcome.as_ref().map(drop));
            if outcome.is_ok() {
                // What was sealed under the old key is gone from the log as well.
                writer.link.empty_log();
            }
            // Whoever asked may be gone.
            let _: Result<(), _> = answer_tx.send(outcome);
        };
        self.send(Request::Job(Box::new(job))).await?;
        let outcome: Result<String, Fault> = self.arrived(answer_rx).await?;
        outcome.map_err(|fault| fault.while_doing("exchange the sealing key", &self.name))
    }
}
